package proxy

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/tproxyd/tproxyd/internal/lab"
)

// TestQueueOrder compares queues of several workers with a plain list: whoever
// came first is next, whichever worker's it is.
func TestQueueOrder(t *testing.T) {
	const workers = 3
	totals := newQueueTotals(workers)
	queues, stats := make([]*queue, workers), &serviceStats{}
	for i := range queues {
		queues[i] = &queue{worker: i, totals: totals, stats: stats}
	}
	type entry struct {
		f *flow
		q *queue
	}
	var want []entry
	rng := rand.New(rand.NewPCG(1, 2))
	for range 20_000 {
		switch n := rng.IntN(5); {
		case n < 3 && len(want) < 50:
			e := entry{&flow{}, queues[rng.IntN(workers)]}
			e.q.push(e.f)
			want = append(want, e)
		case n == 3 && len(want) > 0: // one in the middle gives up, or a reload moves it
			i := rng.IntN(len(want))
			e := want[i]
			ticket := e.f.ticket
			e.q.remove(e.f)
			if rng.IntN(2) == 0 {
				e.f.ticket = ticket
				e.q.push(e.f)
			} else {
				want = slices.Delete(want, i, i+1)
			}
		case len(want) > 0:
			next := totals.next()
			if next != want[0].q.worker || queues[next].first != want[0].f {
				t.Fatalf("worker %d is next, want %d", next, want[0].q.worker)
			}
			queues[next].remove(queues[next].first)
			want = want[1:]
		}
		if int(totals.waiting.Load()) != len(want) {
			t.Fatalf("%d wait, want %d", totals.waiting.Load(), len(want))
		}
	}
	for _, e := range want {
		e.q.remove(e.f)
	}
	if totals.next() != -1 || queues[0].first != nil || queues[0].last != nil {
		t.Error("something is left in an empty queue")
	}
}

// queued is the number of flows of the service web that wait for a backend.
func (b *bed) queued() int64 {
	b.t.Helper()
	return serviceStatsOf(b.t, b.proxy, "web").queued.Load()
}

// closed is the number of flows of the service web that ended for a reason.
func (b *bed) closed(r Reason) uint64 {
	b.t.Helper()
	return serviceStatsOf(b.t, b.proxy, "web").total(func(sh *shard) uint64 { return sh.closed[r].Load() })
}

// limited returns a service with one backend that has room for so many flows.
func limited(limit, size int) Service {
	s := vip("web", 80)
	s.Listen = s.Listen[:1]
	s.Backends = pool(lab.VIP4, 81)
	s.Backends[0].Limit, s.QueueSize, s.QueueTimeout = limit, size, time.Minute
	return s
}

// TestBackendLimit has flows wait for room at their backend, in the order in
// which they came and whichever worker they are of.
func TestBackendLimit(t *testing.T) {
	const limit, waiting = 3, 20
	b := newBed(t, limited(limit, waiting))
	b.names(81)
	vip := addrPort(lab.VIP4, 80)
	var served []*net.TCPConn
	for range limit {
		_, c := b.whose(vip)
		served = append(served, c)
	}
	var queue []*net.TCPConn
	for i := range waiting {
		queue = append(queue, b.dial(vip))
		eventually(t, func() bool { return b.queued() == int64(i+1) }, "the connection is queued")
	}
	if n := b.backendActive("web", "b81"); n != limit {
		t.Errorf("the backend has %d flows, its limit is %d", n, limit)
	}
	// One more is refused.
	b.wantRefused(vip)
	for i, c := range queue {
		served[0].Close()
		served = append(served[1:], c)
		name := make([]byte, 3)
		if _, err := io.ReadFull(c, name); err != nil || string(name) != "b81" {
			t.Fatalf("connection %d of the queue: read %q: %v", i, name, err)
		}
		if n := b.queued(); n != int64(waiting-i-1) {
			t.Errorf("%d wait after %d were served", n, i+1)
		}
	}
	for _, c := range served {
		c.Close()
	}
	b.ends("web", map[Reason]uint64{ClientClose: limit + waiting, QueueFull: 1})
	if n := b.backendActive("web", "b81"); n != 0 {
		t.Errorf("the backend still has %d flows", n)
	}
}

// TestQueueTimeout ends flows that have waited too long, and those whose client
// goes away.
func TestQueueTimeout(t *testing.T) {
	s := limited(1, 10)
	s.IdleTimeout = time.Hour
	b := newBed(t, s)
	b.names(81)
	vip := addrPort(lab.VIP4, 80)
	_, first := b.whose(vip)
	late := b.dial(vip)
	eventually(t, func() bool { return b.queued() == 1 }, "one waits")
	gone := b.dial(vip)
	eventually(t, func() bool { return b.queued() == 2 }, "two wait")
	_ = gone.SetLinger(0)
	gone.Close()
	eventually(t, func() bool { return b.closed(ClientAbort) == 1 }, "the client has given up")
	if n := b.queued(); n != 1 {
		t.Errorf("%d wait, want 1", n)
	}
	b.later(s.QueueTimeout)
	wantRST(t, late)
	first.Close()
	b.ends("web", map[Reason]uint64{ClientAbort: 1, QueueTimeout: 1, ClientClose: 1})
}

// TestQueueReload has flows that wait go on when a reload makes room, and end
// when it leaves nobody to wait for.
func TestQueueReload(t *testing.T) {
	s := limited(1, 10)
	b := newBed(t, s)
	b.names(81, 82)
	vip := addrPort(lab.VIP4, 80)
	b.whose(vip)
	waits := b.dial(vip)
	eventually(t, func() bool { return b.queued() == 1 }, "one waits")
	more := limited(1, 10)
	more.Backends = append(more.Backends, pool(lab.VIP4, 82)...)
	more.Backends[1].Limit = 1
	b.apply(Config{Services: []Service{more}})
	name := make([]byte, 3)
	if _, err := io.ReadFull(waits, name); err != nil || string(name) != "b82" {
		t.Fatalf("read %q: %v; want the backend that the reload brought", name, err)
	}
	waits = b.dial(vip)
	eventually(t, func() bool { return b.queued() == 1 }, "one waits")
	none := limited(1, 10)
	none.Backends[0].Weight = 0
	b.apply(Config{Services: []Service{none}})
	wantRST(t, waits)
	eventually(t, func() bool { return b.closed(NoBackend) == 1 }, "it was refused")
	if n := b.queued(); n != 0 {
		t.Errorf("%d wait", n)
	}
}

// TestQueueStorm has many more clients than room: all are served, and never more
// at a time than the backends take.
func TestQueueStorm(t *testing.T) {
	const limit, clients, rounds = 4, 40, 10
	s := limited(limit, clients)
	s.Backends = pool(lab.VIP4, 81, 82)
	for i := range s.Backends {
		s.Backends[i].Limit = limit
	}
	b := newBed(t, s)
	b.names(81, 82)
	watched := make(chan struct{})
	stop := make(chan struct{})
	go func() {
		defer close(watched)
		for {
			select {
			case <-stop:
				return
			default:
			}
			for i, backend := range s.Backends {
				if n := b.proxy.view.Load().services[0].pool.Active(i); n > limit {
					t.Errorf("%s has %d flows, its limit is %d", backend.Name, n, limit)
				}
			}
			runtime.Gosched()
		}
	}()
	done := make(chan error, clients)
	for range clients {
		go func() {
			for range rounds {
				c, err := b.tryDial(addrPort(lab.VIP4, 80))
				if err == nil {
					_, err = io.ReadFull(c, make([]byte, 3))
					c.Close()
				}
				if err != nil {
					done <- err
					return
				}
			}
			done <- nil
		}()
	}
	for range clients {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	close(stop)
	<-watched
	b.ends("web", map[Reason]uint64{ClientClose: clients * rounds})
	for port := 81; port <= 82; port++ {
		if n := b.backendActive("web", fmt.Sprint("b", port)); n != 0 {
			t.Errorf("backend %d still has %d flows", port, n)
		}
	}
	if n := b.queued(); n != 0 {
		t.Errorf("%d wait", n)
	}
}
