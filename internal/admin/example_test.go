package admin_test

import (
	"context"
	"fmt"

	"github.com/tproxyd/tproxyd/internal/admin"
)

func Example() {
	server, err := admin.New(admin.Config{
		Addr:     "127.0.0.1:0",
		Gatherer: admin.NewRegistry("1.2.3"),
		Live:     func() error { return nil },
		Ready:    func() error { return nil },
		Status:   func() admin.Status { return admin.Status{Version: "1.2.3", Ready: true} },
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	done := make(chan error)
	go func() { done <- server.Run(ctx) }()

	resp, body, err := tryGet("http://" + server.Addr().String() + "/readyz")
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Print(resp.Status, ": ", body)

	stop()
	fmt.Println(<-done)
	// Output:
	// 200 OK: ok
	// <nil>
}
