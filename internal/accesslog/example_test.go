package accesslog_test

import (
	"context"
	"fmt"
	"os"

	"github.com/tproxyd/tproxyd/internal/accesslog"
)

// A worker fills a batch and hands it over; a refused batch is used again.
func Example() {
	sink, err := accesslog.New(accesslog.Config{W: os.Stdout, Format: accesslog.FormatHAProxy})
	if err != nil {
		fmt.Println(err)
		return
	}
	batch := append(sink.Get(), full())
	if sink.Offer(batch) {
		batch = sink.Get()
	} else {
		batch = batch[:0]
	}
	fmt.Println("records in hand:", len(batch))

	ctx, cancel := context.WithCancel(context.Background())
	cancel() // Run still writes what is queued
	if err := sink.Run(ctx); err != nil {
		fmt.Println(err)
	}
	fmt.Println("written:", sink.Written())
	// Output:
	// records in hand: 0
	// 198.18.1.2:40000 [03/Feb/2026:04:05:06.007] web web/web-1 0/1/2000 104857600 -- 9/5/4/2/1 0/0
	// written: 1
}
