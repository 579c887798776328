package logsink_test

import (
	"fmt"
	"os"

	"go.uber.org/zap"

	"github.com/tproxyd/tproxyd/internal/logsink"
)

func ExampleNew() {
	log, sink, err := logsink.New(logsink.Config{Level: "info", Format: "console", W: os.Stdout})
	if err != nil {
		fmt.Println(err)
		return
	}
	log = log.WithOptions(zap.WithClock(clock{}))
	log.Named("proxy").Info("service ready", zap.String("service", "web"))
	if err := sink.Close(); err != nil {
		fmt.Println(err)
	}
	// Output: 2026-02-03T04:05:06.789Z	info	proxy	service ready	{"service": "web"}
}
