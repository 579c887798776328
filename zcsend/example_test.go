package zcsend_test

import (
	"context"
	"fmt"

	"github.com/tproxyd/tproxyd/zcsend"
)

// A frame is written where the kernel will read it.
func Example() {
	ctx := context.Background()
	s, err := zcsend.Open(zcsend.Config{Interface: "lo", Method: zcsend.Ring})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = s.Close() }()
	room, err := s.Reserve(ctx, 60)
	if err != nil {
		fmt.Println(err)
		return
	}
	clear(room)
	room[12], room[13] = 0x88, 0xb5 // an EtherType for experiments
	if err := s.Commit(zcsend.Frame{Data: room}); err != nil {
		fmt.Println(err)
		return
	}
	if err := s.Drain(ctx); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(s.Method(), s.Stats().Sent, "sent")
	// Output: ring 1 sent
}
