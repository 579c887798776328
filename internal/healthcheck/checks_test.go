package healthcheck

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
	"golang.org/x/sys/unix"

	"github.com/tproxyd/tproxyd/internal/netnstest"
)

// journal holds the results by backend.
type journal struct {
	mu  sync.Mutex
	all map[string][]Result
}

func (j *journal) report(r Result) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.all == nil {
		j.all = map[string][]Result{}
	}
	j.all[r.Backend] = append(j.all[r.Backend], r)
}

func (j *journal) count(backend string) int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return len(j.all[backend])
}

func (j *journal) last(backend string) Result {
	j.mu.Lock()
	defer j.mu.Unlock()
	if n := len(j.all[backend]); n > 0 {
		return j.all[backend][n-1]
	}
	return Result{}
}

// begin runs c until the end of the test.
func begin(t testing.TB, c *Checks) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func target(backend string, addr netip.AddrPort) Target {
	return Target{Service: "s", Backend: backend, Addr: addr, Check: &Check{
		Interval: 10 * time.Millisecond, Jitter: 10, Timeout: patient,
	}}
}

func TestChecks(t *testing.T) {
	var j journal
	c := New(Options{Report: j.report})
	a, b := target("a", listen(t, nil)), target("b", closed(t, false))
	c.Set([]Target{a, b})
	begin(t, c)
	netnstest.Eventually(t, limit, func() bool { return j.count("a") >= 3 && j.count("b") >= 3 }, "three checks each")
	if r := j.last("a"); !r.OK || r.Outcome != OK || r.Service != "s" || r.Duration <= 0 {
		t.Errorf("a: %+v", r)
	}
	if r := j.last("b"); r.OK || r.Outcome != Refused || r.Detail == "" {
		t.Errorf("b: %+v", r)
	}
	b.Addr = a.Addr
	c.Set([]Target{b})
	netnstest.Eventually(t, limit, func() bool { return j.last("b").OK }, "b at its new address")
	before := j.count("a")
	n := j.count("b")
	netnstest.Eventually(t, limit, func() bool { return j.count("b") >= n+5 }, "b goes on")
	if got := j.count("a"); got > before+1 {
		t.Errorf("a is gone, and was checked %d times more", got-before)
	}
}

// TestSchedule has a target with a long interval: whether it is kept shows in
// its runner.
func TestSchedule(t *testing.T) {
	c := New(Options{})
	begin(t, c)
	a := target("a", closed(t, false))
	a.Check.Interval = time.Hour
	c.Set([]Target{a})
	first := c.runners[a.key()]
	same := a
	same.Check = &Check{}
	*same.Check = *a.Check
	c.Set([]Target{same})
	if c.runners[a.key()] != first {
		t.Error("an equal target was begun anew")
	}
	other := *a.Check
	other.HTTP = &HTTPCheck{Path: "/x"}
	same.Check = &other
	c.Set([]Target{same})
	if c.runners[a.key()] == first {
		t.Error("a changed target goes on as it was")
	}
}

func TestFastInterval(t *testing.T) {
	var j journal
	c := New(Options{Report: j.report, Changing: func(_, backend string) bool { return backend == "fast" }})
	fast, slow := target("fast", closed(t, false)), target("slow", closed(t, false))
	for _, x := range []*Target{&fast, &slow} {
		x.Check.Interval, x.Check.FastInterval = 24*time.Hour, time.Millisecond
	}
	c.Set([]Target{fast, slow})
	begin(t, c)
	netnstest.Eventually(t, limit, func() bool { return j.count("fast") >= 10 }, "ten fast checks")
	if n := j.count("slow"); n > 1 {
		t.Errorf("%d slow checks", n)
	}
}

func TestJitter(t *testing.T) {
	for range 1000 {
		if d := jittered(time.Second, 10); d < 900*time.Millisecond || d > 1100*time.Millisecond {
			t.Fatal(d)
		}
	}
	if d := jittered(time.Second, 0); d != time.Second {
		t.Error(d)
	}
}

// TestEndsAtOnce stops while a check waits for an answer.
func TestEndsAtOnce(t *testing.T) {
	var accepted atomic.Int32
	a := target("a", listen(t, func(c net.Conn) { accepted.Add(1); hang(c) }))
	a.Check.Type, a.Check.Timeout = HTTP, time.Hour
	var j journal
	c := New(Options{Report: j.report})
	c.Set([]Target{a})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- c.Run(ctx) }()
	netnstest.Eventually(t, limit, func() bool { return accepted.Load() == 1 }, "a check")
	cancel()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(limit):
		t.Error("Run does not end")
	}
	if j.count("a") != 0 {
		t.Errorf("a check that was stopped is reported: %+v", j.last("a"))
	}
}

// TestFlapping alternates between an answer and a reset.
func TestFlapping(t *testing.T) {
	var n atomic.Int32
	addr := listen(t, func(c net.Conn) {
		if n.Add(1)%2 == 0 {
			reset(c)
			return
		}
		afterRequest("HTTP/1.1 200 OK\r\n\r\n", nil)(c)
	})
	for i := range 10 {
		want := []Outcome{OK, Reset}[i%2]
		if f := run(t, Check{Type: HTTP}, addr); f.outcome != want {
			t.Errorf("check %d: %v, %s", i, f.outcome, f.detail)
		}
	}
}

// TestFailed has a check that cannot be made: a source of the other family.
func TestFailed(t *testing.T) {
	core, logs := observer.New(zap.InfoLevel)
	var j journal
	c := New(Options{Log: zap.New(core), Report: j.report})
	a := target("a", listen(t, nil))
	a.Spoof = netip.MustParseAddr("2001:db8::1")
	c.Set([]Target{a})
	begin(t, c)
	k := c.runners[a.key()].counts
	netnstest.Eventually(t, limit, func() bool {
		k.mu.Lock()
		defer k.mu.Unlock()
		return k.outcomes[Failed] >= 3
	}, "three tries")
	if j.count("a") != 0 || logs.Len() != 1 {
		t.Errorf("reported %d times, logged %v", j.count("a"), logs.All())
	}
}

func TestOutcomes(t *testing.T) {
	for err, want := range map[error]Outcome{
		unix.EHOSTUNREACH: Unreachable, unix.ENETUNREACH: Unreachable, unix.ETIMEDOUT: Timeout,
		unix.EMFILE: Failed, unix.EPERM: Failed, unix.EPIPE: Reset, errors.New("?"): Failed,
	} {
		if got := outcomeOf(&net.OpError{Err: err}, false); got != want {
			t.Errorf("%v is %v, want %v", err, got, want)
		}
	}
	seen := map[string]bool{}
	for o := range outcomeCount + 1 {
		if seen[o.String()] {
			t.Errorf("two outcomes are called %v", o)
		}
		seen[o.String()] = true
	}
}
