package discovery_test

import (
	"context"
	"fmt"

	"github.com/tproxyd/tproxyd/internal/discovery"
)

func Example() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	resolver, err := discovery.New(discovery.Config{
		Changed: func(q discovery.Query, endpoints []discovery.Endpoint) {
			for _, e := range endpoints {
				fmt.Println(q, "is", e.Addr)
			}
			cancel()
		},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	resolver.Set([]discovery.Query{{Host: "192.0.2.1", Port: 443}})
	if err := resolver.Run(ctx); err != nil {
		fmt.Println(err)
	}
	// Output: 192.0.2.1:443 is 192.0.2.1:443
}
