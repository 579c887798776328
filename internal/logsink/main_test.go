package logsink_test

import (
	"fmt"
	"os"
	"testing"

	"go.uber.org/goleak"
	"go.uber.org/zap"

	"github.com/tproxyd/tproxyd/internal/logsink"
)

const (
	childEnv = "LOGSINK_TEST_BROKEN_STDERR"
	// childOK is what the child returns when it outlived its stderr.
	childOK = 42
)

func TestMain(m *testing.M) {
	if os.Getenv(childEnv) != "" {
		os.Exit(logToBrokenStderr())
	}
	goleak.VerifyTestMain(m)
}

// logToBrokenStderr is the child of TestBrokenStderr.
func logToBrokenStderr() int {
	log, sink, err := logsink.New(logsink.Config{W: os.Stderr})
	if err != nil {
		fmt.Fprintln(os.Stdout, err)
		return 1
	}
	const lines = 10
	for i := range lines {
		log.Info("nobody reads this", zap.Int("i", i))
	}
	if err := sink.Close(); err != nil {
		fmt.Fprintln(os.Stdout, err)
		return 1
	}
	if got := sink.Dropped(); got != lines {
		fmt.Fprintln(os.Stdout, "dropped", got)
		return 1
	}
	return childOK
}
