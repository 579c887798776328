package proxy

import (
	"bytes"
	"net/netip"
	"testing"
	"time"

	"github.com/tproxyd/tproxyd/internal/eventloop"
	"github.com/tproxyd/tproxyd/internal/lab"
	"github.com/tproxyd/tproxyd/internal/sys"
	"golang.org/x/sys/unix"
)

// peer is a UDP socket of a client or a server without Go's poller around it:
// it sends runs of datagrams by UDP_SEGMENT, receives datagrams one by one, and
// allocates nothing.
type peer struct {
	fd     int
	sender *sys.Sender
	rx     *sys.Receiver
	poll   [1]unix.PollFd
}

// peer opens a socket of h that is bound to local, and connected to remote if
// that is valid.
func (b *bed) peer(h *lab.Host, local, remote netip.AddrPort) *peer {
	b.t.Helper()
	p := &peer{fd: -1, sender: sys.NewSender(1), rx: sys.NewReceiver(1)}
	err := h.Do(func() error {
		var e sys.Errno
		if p.fd, e = sys.UDPSocket(sys.Family(local.Addr())); e != 0 {
			return e
		}
		var at sys.SockAddr
		at.Set(local)
		if e = sys.Bind(p.fd, &at); e != 0 || !remote.IsValid() {
			return nonZero(e)
		}
		at.Set(remote)
		return nonZero(sys.Connect(p.fd, &at))
	})
	if p.fd >= 0 {
		b.t.Cleanup(func() { sys.Close(p.fd) })
	}
	if err != nil {
		b.t.Fatal(err)
	}
	return p
}

// nonZero is e as an error, which 0 is not.
func nonZero(e sys.Errno) error {
	if e == 0 {
		return nil
	}
	return e
}

// try sends data in datagrams of segment bytes, in one call; 0: as one.
func (p *peer) try(segment int, data []byte) sys.Errno {
	p.sender.Reset()
	p.sender.Add(nil, segment, data)
	_, e := p.sender.Send(p.fd, 0)
	return e
}

// wait reports whether fd can be read before patience ends.
func (p *peer) wait(fd int) bool {
	p.poll[0] = unix.PollFd{Fd: int32(fd), Events: unix.POLLIN}
	for {
		n, err := unix.Poll(p.poll[:], int(patience/time.Millisecond))
		if err != unix.EINTR {
			return n == 1
		}
	}
}

// next returns the next datagram, which is lent until the one after it, or nil
// and false if none comes.
func (p *peer) next() ([]byte, bool) {
	if !p.wait(p.fd) {
		return nil, false
	}
	if n, e := p.rx.Receive(p.fd, 0); e != 0 || n != 1 {
		return nil, false
	}
	return p.rx.Data(0), true
}

// expect wants the datagrams of segment bytes that data is made of, one by one
// and in order.
func (p *peer) expect(t *testing.T, segment int, data []byte) {
	t.Helper()
	for i := 0; ; i++ {
		want := data
		if segment > 0 && segment < len(data) {
			want = data[:segment]
		}
		got, ok := p.next()
		if !ok {
			t.Fatalf("datagram %d does not come", i)
		}
		if !bytes.Equal(got, want) {
			t.Fatalf("datagram %d: %d bytes, want %d, or they differ", i, len(got), len(want))
		}
		if data = data[len(want):]; len(data) == 0 {
			return
		}
	}
}

// udpWay is one way through the proxy for a UDP client.
type udpWay struct {
	service         Service
	client          netip.Addr
	address, server netip.AddrPort
}

// eachUDPWay runs test for both modes and families.
func eachUDPWay(t *testing.T, test func(t *testing.T, w udpWay)) {
	const port = 4433
	for _, s := range []Service{udpVIP("any-udp", port), udpIntercept()} {
		to, at := [2]string{lab.VIP4, lab.VIP6}, [2]string{lab.ServerIP4, lab.ServerIP6}
		if s.Mode == Intercept {
			to = [2]string{lab.ForeignIP4, lab.ForeignIP6}
			at = to
		}
		for i, family := range []string{"v4", "v6"} {
			client := [2]string{lab.ClientIP4, lab.ClientIP6}[i]
			t.Run(s.Mode.String()+"/"+family, func(t *testing.T) {
				test(t, udpWay{s, netip.MustParseAddr(client), addrPort(to[i], port), addrPort(at[i], port)})
			})
		}
	}
}

// converse returns a client and a server that have spoken so much with each
// other that the sockets of their flow are set up for streams.
func (b *bed) converse(w udpWay) (ends [2]*peer) {
	b.t.Helper()
	server := b.peer(b.Server, w.server, netip.AddrPort{})
	c := b.peer(b.Client, netip.AddrPortFrom(w.client, 50000), w.address)
	ends = [2]*peer{client: c, upstream: server}
	for i := range streamDatagrams {
		b.pass(ends, client, 0, []byte("ping"))
		if i == 0 {
			if e := sys.Connect(server.fd, server.rx.From(0)); e != 0 {
				b.t.Fatal(e)
			}
		}
		b.pass(ends, upstream, 0, []byte("pong"))
	}
	for side := range ends {
		b.passed(w.service.Name, side, udpCounts{}, streamDatagrams)
	}
	return ends
}

// pass has a run sent from one end arrive as it is at the other one.
func (b *bed) pass(ends [2]*peer, from, segment int, data []byte) {
	b.t.Helper()
	if e := ends[from].try(segment, data); e != 0 {
		b.t.Fatalf("send %d bytes in datagrams of %d: %v", len(data), segment, e)
	}
	ends[1-from].expect(b.t, segment, data)
}

// passed waits until the proxy has booked all of n datagrams, and returns how
// many of them it sent by UDP_SEGMENT. What it sends is seen before it is
// booked.
func (b *bed) passed(service string, from int, before udpCounts, n int) (segmented uint64) {
	b.t.Helper()
	eventually(b.t, func() bool {
		c := b.udpCounts(service)
		all, start := [2]uint64{c.in, c.out}, [2]uint64{before.in, before.out}
		runs, old := [2]uint64{c.gsoIn, c.gsoOut}, [2]uint64{before.gsoIn, before.gsoOut}
		segmented = runs[from] - old[from]
		return all[from]-start[from] == uint64(n)
	}, "the datagrams are booked")
	return segmented
}

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
