package eventloop_test

import (
	"fmt"
	"time"

	"github.com/tproxyd/tproxyd/internal/eventloop"
)

// bell stops its loop when it rings.
type bell struct {
	loop  *eventloop.Loop
	timer eventloop.Timer
}

func (b *bell) Event(eventloop.Tag, uint32) {}
func (b *bell) Turn() bool                  { return false }

func (b *bell) Expired(*eventloop.Timer) {
	fmt.Println("ding")
	b.loop.Stop()
}

func Example() {
	loop, err := eventloop.New()
	if err != nil {
		fmt.Println(err)
		return
	}
	defer loop.Close()
	b := &bell{loop: loop}
	loop.Post(func() { loop.Schedule(&b.timer, loop.Now()+int64(time.Millisecond)) })
	fmt.Println(loop.Run(b))
	// Output:
	// ding
	// <nil>
}
