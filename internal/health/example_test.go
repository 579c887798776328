package health_test

import (
	"fmt"
	"time"

	"github.com/tproxyd/tproxyd/internal/health"
)

func Example() {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	g := health.NewGroup(health.Policy{
		Checked: true, Rise: 2, Fall: 3, InitialUp: true,
		SlowStart: 20 * time.Second,
	}, []health.Member{{Name: "web-1", Weight: 1}, {Name: "web-2", Weight: 1}}, now)

	say := func(changes []health.Transition) {
		for _, c := range changes {
			fmt.Println(c.Name, c.From, "->", c.To, "by", c.Cause, g.Effective())
		}
	}
	for _, ok := range []bool{false, false, false, true, true} {
		now = now.Add(time.Second)
		say(g.Check(0, ok, now))
	}
	for !g.Next().IsZero() {
		now = g.Next()
		say(g.Tick(now))
	}
	// Output:
	// web-1 up -> down by checks [{1 false} {1 true}]
	// web-1 down -> starting by checks [{1 true} {20 true}]
	// web-1 starting -> up by slow_start_over [{1 true} {1 true}]
}
