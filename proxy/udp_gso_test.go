package proxy

import (
	"testing"

	"github.com/tproxyd/tproxyd/internal/eventloop"
	"github.com/tproxyd/tproxyd/internal/sys"
	"golang.org/x/sys/unix"
)

// datagramRun is n bytes for one end to send.
func datagramRun(seed, n int) []byte {
	var b []byte
	for len(b) < n {
		b = append(b, noiseAt(seed, len(b))...)
	}
	return b[:n]
}

// TestUDPSegments has runs that one end sends by UDP_SEGMENT reach the other end
// as the same datagrams in the same order, and cross the proxy as runs.
func TestUDPSegments(t *testing.T) {
	eachUDPWay(t, func(t *testing.T, w udpWay) {
		b := newBed(t, w.service)
		ends := b.converse(w)
		for side := range ends {
			for i, run := range []struct{ segment, size int }{
				{1200, 50 * 1200},
				{1200, 54*1200 + 1}, // the last one is shorter
				{1000, 64 * 1000},
				{1452, 40*1452 - 1},
				{1, 64},
				{700, 701},
				{1232, 2 * 1232},
				{500, 128 * 500}, // from Linux 6.9 on
				{1200, 1200},
			} {
				before := b.udpCounts(w.service.Name)
				data := datagramRun(i, run.size)
				if e := ends[side].try(run.segment, data); e == unix.EINVAL && run.size > 64*run.segment {
					continue
				} else if e != 0 {
					t.Fatalf("send %+v: %v", run, e)
				}
				want := count(run.size, run.segment)
				got := b.passed(w.service.Name, side, before, int(want))
				if want == 1 {
					want = 0
				}
				if got != want {
					t.Errorf("%s %+v: %d datagrams left by UDP_SEGMENT, want %d", directionNames[side], run, got, want)
				}
				ends[1-side].expect(t, run.segment, data)
			}
		}
		if n := b.udpCounts(w.service.Name); n.dropped != 0 || n.flows != 1 {
			t.Errorf("counters %+v", n)
		}
	})
}

// TestUDPCoalesces has datagrams that were sent one by one cross the proxy as
// runs of those that have one size, and leave it as they came.
func TestUDPCoalesces(t *testing.T) {
	sizes := []int{
		200, 200, 200, 200, 100, // one run: a shorter one ends it
		200, 200,
		0, // alone
		300,
		700, 700, 700, 700,
		800, 0, 1, 1,
	}
	const inRuns = 5 + 2 + 4 + 2
	eachUDPWay(t, func(t *testing.T, w udpWay) {
		b := newBed(t, w.service)
		ends := b.converse(w)
		for side := range ends {
			// The datagrams may take a while to be in the socket's queue, so the
			// proxy need not find all of them together the first time.
			got := uint64(0)
			for range 50 {
				if got = b.passTogether(w, ends, side, sizes); got == inRuns {
					break
				}
			}
			if got != inRuns {
				t.Errorf("%s: %d datagrams left by UDP_SEGMENT, want %d", directionNames[side], got, inRuns)
			}
		}
	})
}

// passTogether has the proxy find datagrams of these sizes all at once, wants
// them to arrive, and returns how many it sent by UDP_SEGMENT.
func (b *bed) passTogether(w udpWay, ends [2]*peer, from int, sizes []int) uint64 {
	b.t.Helper()
	before := b.udpCounts(w.service.Name)
	thaw := b.freeze(nil)
	for i, n := range sizes {
		if e := ends[from].try(0, datagramRun(i, n)); e != 0 {
			b.t.Fatal(e)
		}
	}
	thaw()
	for i, n := range sizes {
		ends[1-from].expect(b.t, 0, datagramRun(i, n))
	}
	return b.passed(w.service.Name, from, before, len(sizes))
}

// TestUDPSegmentsRefused has the kernel refuse runs, as it does for sockets
// that compute no checksum (EINVAL, udp_send_skb). Nothing is lost.
func TestUDPSegmentsRefused(t *testing.T) {
	eachUDPWay(t, func(t *testing.T, w udpWay) {
		b := newBed(t, w.service)
		ends := b.converse(w)
		for _, p := range ends { // IPv6 takes no datagram without a checksum otherwise (RFC 6935)
			sys.SetInt(p.fd, unix.SOL_UDP, unix.UDP_NO_CHECK6_RX, 1)
		}
		b.proxy.each(func(w *worker) {
			w.udp.flows.all(func(f *udpFlow) {
				for _, fd := range []int{sendsBy(f, client), sendsBy(f, upstream)} {
					sys.SetInt(fd, unix.SOL_SOCKET, unix.SO_NO_CHECK, 1)
					sys.SetInt(fd, unix.SOL_UDP, unix.UDP_NO_CHECK6_TX, 1)
				}
			})
		})
		for side := range ends {
			before := b.udpCounts(w.service.Name)
			refused := b.refusedRuns()
			for i := range 3 {
				data := datagramRun(i, 50*1200)
				if e := ends[side].try(1200, data); e != 0 {
					t.Fatal(e)
				}
				ends[1-side].expect(t, 1200, data)
			}
			if got := b.passed(w.service.Name, side, before, 3*50); got != 0 {
				t.Errorf("%s: %d datagrams left by UDP_SEGMENT, want none", directionNames[side], got)
			}
			if n := b.refusedRuns() - refused; n != 1 {
				t.Errorf("%s: %d runs were tried, want 1", directionNames[side], n)
			}
		}
		if n := b.udpCounts(w.service.Name); n.dropped != 0 || n.flows != 1 {
			t.Errorf("counters %+v", n)
		}
	})
}

// sendsBy is the socket by which leg side of f sends and receives.
func sendsBy(f *udpFlow, side int) int {
	if fd := int(f.fds[side]); fd >= 0 {
		return fd
	}
	return f.listener.fd
}

// refusedRuns is how many runs the kernel has refused.
func (b *bed) refusedRuns() (n uint64) {
	for _, w := range b.proxy.workers {
		n += w.stats.refusedRuns.Load()
	}
	return n
}

// TestUDPSteadyPathAllocatesNothing drives a worker by hand: finding the flow,
// refreshing it and passing on datagrams allocate nothing, in either direction.
func TestUDPSteadyPathAllocatesNothing(t *testing.T) {
	single, run := datagramRun(0, 200), datagramRun(1, 20*1200)
	eachUDPWay(t, func(t *testing.T, w udpWay) {
		b := newBed(t, w.service)
		ends := b.converse(w)
		lost := false
		b.proxy.each(func(wk *worker) {
			wk.udp.flows.all(func(f *udpFlow) {
				sides := [2][]byte{client: single, upstream: run}
				for side, other := range [2]int{upstream, client} {
					n := testing.AllocsPerRun(1000, func() {
						for i, data := range sides {
							lost = lost || ends[side].try(1200*i, data) != 0 || !ends[side].wait(sendsBy(f, side))
							wk.udp.handle(f, side)
							for range count(len(data), 1200) {
								_, ok := ends[other].next()
								lost = lost || !ok
							}
						}
					})
					if n != 0 {
						t.Errorf("%s: %v allocations per datagram and run of them", directionNames[side], n)
					}
				}
			})
		})
		if lost {
			t.Error("a datagram was lost")
		}
		if n := b.udpCounts(w.service.Name); n.in < 21_000 || n.out < 21_000 || n.flows != 1 || n.gsoIn < 20_000 || n.gsoOut < 20_000 {
			t.Errorf("counters %+v", n)
		}
	})
}

// handle does what an event of leg side of f, and the end of its batch, do.
func (u *udpWorker) handle(f *udpFlow, side int) {
	if f.fds[side] < 0 {
		u.event(eventloop.Tag{Slot: udpListeners + uint32(f.listener.index)}, unix.EPOLLIN)
	} else {
		u.event(f.tag(side), unix.EPOLLIN)
	}
	u.turn()
}
