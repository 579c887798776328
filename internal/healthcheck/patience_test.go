package healthcheck

import (
	"context"
	"net"
	"sync"
	"testing"
	"time"
)

// clock is the true time and the jumps that a test makes.
type clock struct {
	mu     sync.Mutex
	offset time.Duration
	asked  int
	jump   func(asked int) time.Duration
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.offset += c.jump(c.asked)
	c.asked++
	return time.Now().Add(c.offset)
}

// TestStarved makes timers fire much later than they are due, as if this
// process had not run; the answer comes after more quarters than a timeout
// has.
func TestStarved(t *testing.T) {
	for name, tt := range map[string]struct {
		jump func(int) time.Duration
		want Outcome
	}{
		// The first question is for the beginning of the check.
		"some": {func(asked int) time.Duration {
			if asked >= 1 && asked <= quarters+2 {
				return time.Hour
			}
			return 0
		}, OK},
		"always": {func(int) time.Duration { return time.Hour }, Late},
	} {
		t.Run(name, func(t *testing.T) {
			const enough = quarters + 2
			reached := make(chan struct{})
			clk := &clock{jump: func(asked int) time.Duration {
				if asked == enough && tt.want == OK {
					close(reached)
				}
				return tt.jump(asked)
			}}
			addr := listen(t, func(c net.Conn) {
				if tt.want == OK {
					<-reached
					afterRequest("HTTP/1.1 200 OK\r\n\r\n", nil)(c)
					return
				}
				hang(c)
			})
			timeout := short
			if tt.want == OK {
				timeout = time.Second // a late quarter is 250 ms; what is left of it is enough for the answer
			}
			target := Target{Addr: addr, Check: &Check{Type: HTTP, Timeout: timeout}}
			wantOutcome(t, target.check(context.Background(), clk.now), tt.want)
		})
	}
}

// TestPatience goes through its ticks by hand.
func TestPatience(t *testing.T) {
	for name, tt := range map[string]struct {
		lateness []time.Duration // of each tick
		want     error           // after the last of them, and not before
	}{
		"in time":       {[]time.Duration{0, 0, 0, 0}, errTimeout},
		"a little late": {[]time.Duration{time.Second, time.Second, time.Second, time.Second}, errTimeout},
		"late once":     {[]time.Duration{0, 0, 0, time.Hour, 0}, errTimeout},
		"late often": {[]time.Duration{
			0, 0, 0, time.Hour, time.Hour, time.Hour, time.Hour, time.Hour, time.Hour,
			time.Hour, time.Hour, time.Hour, time.Hour, time.Hour, time.Hour, time.Hour,
		}, errLate},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancelCause(t.Context())
			now := time.Unix(0, 0)
			p := &patience{now: func() time.Time { return now }, cancel: cancel, quarter: time.Minute, due: now}
			p.timer = time.AfterFunc(time.Hour, func() {}) // never fires
			defer p.stop()
			for i, late := range tt.lateness {
				if cause := context.Cause(ctx); cause != nil {
					t.Fatalf("ended by %v before tick %d", cause, i)
				}
				now = p.due.Add(late)
				p.tick()
			}
			if cause := context.Cause(ctx); cause != tt.want { //nolint:errorlint // it is the error itself
				t.Errorf("ended by %v, want %v", cause, tt.want)
			}
		})
	}
}
