package eventloop

import (
	"math"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/tproxyd/tproxyd/internal/netnstest"
	"github.com/tproxyd/tproxyd/internal/sys"
	"golang.org/x/sys/unix"
)

const patience = 10 * time.Second

// handler is a Handler made of functions; nil ones do nothing.
type handler struct {
	event   func(Tag, uint32)
	expired func(*Timer)
	turn    func() bool
}

func (h *handler) Event(tag Tag, events uint32) {
	if h.event != nil {
		h.event(tag, events)
	}
}

func (h *handler) Expired(t *Timer) {
	if h.expired != nil {
		h.expired(t)
	}
}

func (h *handler) Turn() bool { return h.turn != nil && h.turn() }

// start runs a loop until the test ends.
func start(t *testing.T, h Handler) *Loop {
	t.Helper()
	l, err := New()
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- l.Run(h) }()
	t.Cleanup(func() {
		l.Post(l.Stop)
		if err := <-done; err != nil {
			t.Error(err)
		}
		l.Close()
	})
	return l
}

// on runs fn in the loop and waits for it.
func on(t *testing.T, l *Loop, fn func()) {
	t.Helper()
	done := make(chan struct{})
	if !l.Post(func() { defer close(done); fn() }) {
		t.Fatal("the loop has ended")
	}
	<-done
}

func TestPost(t *testing.T) {
	l := start(t, &handler{})
	const senders, each = 16, 2000
	var got [senders]int // of the loop's goroutine
	n := 0
	all := make(chan struct{})
	var posting sync.WaitGroup
	for s := range senders {
		posting.Go(func() {
			for i := range each {
				if !l.Post(func() {
					if got[s] != i {
						t.Errorf("sender %d: letter %d after %d", s, i, got[s])
					}
					got[s]++
					if n++; n == senders*each {
						close(all)
					}
				}) {
					t.Error("the loop has ended")
				}
			}
		})
	}
	posting.Wait()
	select {
	case <-all:
	case <-time.After(patience):
		on(t, l, func() { t.Errorf("%d letters, want %d", n, senders*each) })
	}
}

// TestPostAtTheEnd has letters race with the end: each one taken is delivered.
func TestPostAtTheEnd(t *testing.T) {
	for range 50 {
		l, err := New()
		if err != nil {
			t.Fatal(err)
		}
		var taken, refused, delivered int
		var mu sync.Mutex
		var posting sync.WaitGroup
		for range 4 {
			posting.Go(func() {
				for range 200 {
					ok := l.Post(func() {
						mu.Lock()
						delivered++
						mu.Unlock()
					})
					mu.Lock()
					if ok {
						taken++
					} else {
						refused++
					}
					mu.Unlock()
				}
			})
		}
		posting.Go(func() { runtime.Gosched(); l.Post(l.Stop) })
		if err := l.Run(&handler{}); err != nil {
			t.Fatal(err)
		}
		posting.Wait()
		if taken != delivered || taken+refused != 800 {
			t.Fatalf("%d letters taken, %d delivered, %d refused", taken, delivered, refused)
		}
		if l.Post(func() { t.Error("delivered after the end") }) {
			t.Fatal("a letter was taken after the end")
		}
		l.Close()
	}
}

func TestPostFromTheLoop(t *testing.T) {
	l := start(t, &handler{})
	done := make(chan struct{})
	l.Post(func() { l.Post(func() { l.Post(func() { close(done) }) }) })
	<-done
}

// TestTags has tags come back whole, so that an owner can tell an event of its
// descriptor from one of the slot's previous owner.
func TestTags(t *testing.T) {
	events := make(chan Tag, 10)
	h := &handler{event: func(tag Tag, _ uint32) { events <- tag }}
	l := start(t, h)
	for _, tag := range []Tag{{0, 0}, {7, 1}, {7, 2}, {7, math.MaxUint32}, {NoSlot - 1, 5}, {1 << 31, 1 << 31}} {
		p := newPipe(t)
		on(t, l, func() {
			if err := l.Add(p.R, unix.EPOLLIN|unix.EPOLLET, tag); err != nil {
				t.Error(err)
			}
		})
		if _, err := unix.Write(p.W, []byte("x")); err != nil {
			t.Fatal(err)
		}
		if got := <-events; got != tag {
			t.Errorf("tag %v came back as %v", tag, got)
		}
	}
}

func newPipe(t *testing.T) sys.Pipe {
	t.Helper()
	p, err := sys.NewPipe(4096)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

// TestDescriptors watches a pipe by level and one by edge.
func TestDescriptors(t *testing.T) {
	var counts [2]int // of the loop's goroutine
	h := &handler{event: func(tag Tag, _ uint32) { counts[tag.Slot]++ }}
	l := start(t, h)
	pipes := []sys.Pipe{newPipe(t), newPipe(t)}
	on(t, l, func() {
		if err := l.Add(pipes[0].R, unix.EPOLLIN, Tag{Slot: 0}); err != nil {
			t.Error(err)
		}
		if err := l.Add(pipes[1].R, unix.EPOLLIN|unix.EPOLLET, Tag{Slot: 1}); err != nil {
			t.Error(err)
		}
		if err := l.Add(pipes[1].R, unix.EPOLLIN, Tag{Slot: 1}); err == nil {
			t.Error("a descriptor was added twice")
		}
	})
	for _, p := range pipes {
		if _, err := unix.Write(p.W, []byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	netnstest.Eventually(t, patience, func() (enough bool) {
		on(t, l, func() { enough = counts[0] > 10 })
		return enough
	}, "a level-triggered descriptor is announced again and again")
	on(t, l, func() {
		if counts[1] != 1 {
			t.Errorf("an edge was announced %d times", counts[1])
		}
		if err := l.Remove(pipes[0].R); err != nil {
			t.Error(err)
		}
		counts[0] = 0
	})
	on(t, l, func() {})
	on(t, l, func() {
		if counts[0] > 1 { // one may have been in the batch
			t.Errorf("%d events of a descriptor that was removed", counts[0])
		}
		if err := l.Remove(pipes[0].R); err == nil {
			t.Error("a descriptor was removed twice")
		}
	})
}

// TestTimers lets timers expire in a loop: in their order, not before their
// time, each once, and not if cancelled meanwhile by another.
func TestTimers(t *testing.T) {
	type expiry struct {
		slot  uint32
		early bool
	}
	got := make(chan expiry, 10)
	var all [4]Timer // of the loop's goroutine
	var l *Loop
	h := &handler{expired: func(tm *Timer) {
		got <- expiry{tm.Slot, l.Now() < tm.when || tm.Scheduled()}
		if tm.Slot == 1 {
			l.Cancel(&all[2])
			l.Cancel(&all[2])
			l.Schedule(&all[3], l.Now()+int64(time.Millisecond))
		}
	}}
	ready := make(chan struct{})
	loop, err := New()
	if err != nil {
		t.Fatal(err)
	}
	l = loop
	done := make(chan error, 1)
	go func() { close(ready); done <- l.Run(h) }()
	<-ready
	on(t, l, func() {
		for i := range all {
			all[i].Slot = uint32(i)
		}
		now := l.Now()
		l.Schedule(&all[2], now+int64(3*time.Millisecond))
		l.Schedule(&all[1], now+int64(time.Hour))
		l.Schedule(&all[0], now+int64(time.Millisecond))
		l.Schedule(&all[1], now+int64(3*time.Millisecond)-1) // moved forward
		l.Schedule(&all[3], now+int64(time.Hour))
	})
	for _, want := range []uint32{0, 1, 3} {
		if e := <-got; e.slot != want || e.early {
			t.Errorf("expired %+v, want %d", e, want)
		}
	}
	l.Post(l.Stop)
	if err := <-done; err != nil {
		t.Error(err)
	}
	if len(got) != 0 || len(l.timers.heap) != 0 {
		t.Errorf("%d more expired, %d left", len(got), len(l.timers.heap))
	}
	l.Close()
}

// TestTurn keeps the loop awake while there is work that no event announces.
func TestTurn(t *testing.T) {
	work := 1000
	idle := make(chan struct{})
	h := &handler{turn: func() bool {
		if work--; work == 0 {
			close(idle)
		}
		return work > 0
	}}
	on(t, start(t, h), func() {})
	<-idle
}

// TestClock compares the loop's times with each other.
func TestClock(t *testing.T) {
	l := start(t, &handler{})
	on(t, l, func() {
		now, clock := l.Now(), l.Clock()
		if clock < now {
			t.Errorf("clock %d is behind the batch's %d", clock, now)
		}
		if d := time.Since(l.Wall(clock)); d < 0 || d > patience {
			t.Errorf("wall time is off by %v", d)
		}
	})
}

// TestAdvance lets an hour go by.
func TestAdvance(t *testing.T) {
	var timer Timer
	due := make(chan struct{})
	l := start(t, &handler{expired: func(*Timer) { close(due) }})
	var wall time.Time
	on(t, l, func() {
		wall = l.Wall(l.Now())
		l.Schedule(&timer, l.Now()+int64(time.Hour))
		l.Advance(time.Hour)
	})
	select {
	case <-due:
	case <-time.After(patience):
		t.Fatal("the timer is not due after an hour")
	}
	on(t, l, func() {
		if gone := l.Wall(l.Now()).Sub(wall); gone < 0 || gone > 2*patience {
			t.Errorf("the wall clock moved by %v", gone)
		}
	})
}

// TestSleepingLoop runs the garbage collector while a loop sleeps: a raw system
// call that sleeps would hold it up.
func TestSleepingLoop(t *testing.T) {
	l := start(t, &handler{})
	on(t, l, func() {})
	done := make(chan struct{})
	go func() { runtime.GC(); close(done) }()
	select {
	case <-done:
	case <-time.After(patience):
		t.Fatal("the garbage collector waits for a loop that sleeps")
	}
}

func TestRunFails(t *testing.T) {
	l, err := New()
	if err != nil {
		t.Fatal(err)
	}
	ran := false
	l.Post(func() { ran = true })
	sys.Close(l.epfd)
	if err := l.Run(&handler{}); err == nil {
		t.Error("a loop without epoll runs")
	}
	if !ran || l.Post(func() {}) {
		t.Error("the mailbox of a loop that failed is open")
	}
	sys.Close(l.wakefd)
}
