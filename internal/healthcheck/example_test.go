package healthcheck_test

import (
	"context"
	"fmt"
	"net"
	"time"

	"github.com/tproxyd/tproxyd/internal/healthcheck"
)

func Example() {
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer ln.Close()
	ctx, cancel := context.WithCancel(context.Background())
	checks := healthcheck.New(healthcheck.Options{
		Report: func(r healthcheck.Result) {
			if ctx.Err() == nil {
				fmt.Println(r.Service, r.Backend, r.Outcome)
				cancel()
			}
		},
	})
	checks.Set([]healthcheck.Target{{
		Service: "web", Backend: "web-1", Addr: ln.Addr().(*net.TCPAddr).AddrPort(),
		Check: &healthcheck.Check{Type: healthcheck.TCP, Interval: 100 * time.Millisecond},
	}})
	if err := checks.Run(ctx); err != nil {
		fmt.Println(err)
	}
	// Output: web web-1 ok
}
