package proxy

import (
	"net/netip"
	"testing"

	"github.com/tproxyd/tproxyd/internal/lab"
	"github.com/tproxyd/tproxyd/internal/sys"
	"golang.org/x/sys/unix"
)

// narrowMTU is the least that IPv6 has. A datagram of tooBig bytes passes the
// other links.
const (
	narrowMTU = 1280
	tooBig    = 1400
)

// largestPayload is what a packet of narrowMTU carries.
func largestPayload(ip netip.Addr) int {
	if ip.Is6() {
		return narrowMTU - 48
	}
	return narrowMTU - 28
}

// dontFragment has p send with DF set, or fragment.
func (p *peer) dontFragment(t *testing.T, w udpWay, on bool) {
	t.Helper()
	if e := sys.SetDontFragment(p.fd, sys.Family(w.client), on); e != 0 {
		t.Fatal(e)
	}
}

// pathMTU is what p's host knows of the path to p's peer.
func (p *peer) pathMTU(t *testing.T, w udpWay) int {
	t.Helper()
	level, option := unix.SOL_IP, unix.IP_MTU
	if w.client.Is6() {
		level, option = unix.SOL_IPV6, unix.IPV6_MTU
	}
	n, err := unix.GetsockoptInt(p.fd, level, option)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// wantTooBig waits until a service has dropped n datagrams as too big.
func (b *bed) wantTooBig(service string, n int) {
	b.t.Helper()
	eventually(b.t, func() bool { return b.udpCounts(service).drops[dropTooBig] == uint64(n) }, "datagrams are dropped as too big")
}

// learns waits until p's socket has the error, and p's host the MTU.
func (p *peer) learns(t *testing.T, w udpWay) {
	t.Helper()
	eventually(t, func() bool { return sys.SocketError(p.fd) == unix.EMSGSIZE }, "the sender's socket has EMSGSIZE")
	if n := p.pathMTU(t, w); n != narrowMTU {
		t.Errorf("the sender's path MTU is %d, want %d", n, narrowMTU)
	}
}

// TestUDPTooBig narrows the link behind the proxy, in either direction. What is
// too big for it and not to be fragmented is dropped and counted, and its
// sender learns of it and adapts.
func TestUDPTooBig(t *testing.T) {
	eachUDPWay(t, func(t *testing.T, w udpWay) {
		for side, direction := range directionNames {
			t.Run(direction, func(t *testing.T) {
				b := newBed(t, w.service)
				ends := b.converse(w)
				// The first large one gets the benefit of the doubt.
				b.pass(ends, side, 0, datagramRun(0, tooBig))
				b.narrowLink(1 - side)
				ends[side].dontFragment(t, w, true)
				if e := ends[side].try(0, datagramRun(1, tooBig)); e != 0 {
					t.Fatal(e)
				}
				ends[side].learns(t, w)
				b.wantTooBig(w.service.Name, 1)
				if e := ends[side].try(0, datagramRun(1, tooBig)); e != unix.EMSGSIZE {
					t.Errorf("sending it again: %v, want %v", e, unix.EMSGSIZE)
				}
				fits := datagramRun(2, largestPayload(w.client))
				b.pass(ends, side, 0, fits)
				b.pass(ends, 1-side, 0, fits)
				// The refusal of runs of the larger size is none of this one.
				before := b.udpCounts(w.service.Name)
				run := datagramRun(3, 20*len(fits))
				b.pass(ends, side, len(fits), run)
				if n := b.passed(w.service.Name, side, before, 20); n != 20 {
					t.Errorf("%d datagrams left by UDP_SEGMENT, want 20", n)
				}
				if n := b.udpCounts(w.service.Name); n.dropped != 1 || n.flows != 1 || n.active != 1 {
					t.Errorf("counters %+v", n)
				}
			})
		}
	})
}

// TestUDPRunTooBig has a run go where its datagrams are too big. Each is
// counted, and the ones behind it that fit are not lost.
func TestUDPRunTooBig(t *testing.T) {
	eachUDPWay(t, func(t *testing.T, w udpWay) {
		for side, direction := range directionNames {
			t.Run(direction, func(t *testing.T) {
				b := newBed(t, w.service)
				ends := b.converse(w)
				b.narrowLink(1 - side)
				ends[side].dontFragment(t, w, true)
				// The last one of them is shorter and fits.
				fits := datagramRun(9, 100)
				run := append(datagramRun(1, 10*tooBig), fits...)
				if e := ends[side].try(tooBig, run); e != 0 {
					t.Fatal(e)
				}
				ends[1-side].expect(t, 0, fits)
				b.wantTooBig(w.service.Name, 10)
				ends[side].learns(t, w)
			})
		}
	})
}

// TestUDPFragments has a sender that lets its datagrams be fragmented get them
// through a narrow link.
func TestUDPFragments(t *testing.T) {
	eachUDPWay(t, func(t *testing.T, w udpWay) {
		for side, direction := range directionNames {
			t.Run(direction, func(t *testing.T) {
				b := newBed(t, w.service)
				ends := b.converse(w)
				b.narrowLink(1 - side)
				ends[side].dontFragment(t, w, false)
				for i, n := range []int{1600, 3000, 9000, 65507} {
					b.pass(ends, side, 0, datagramRun(i, n))
				}
				if n := b.udpCounts(w.service.Name); n.dropped != 0 || n.flows != 1 {
					t.Errorf("counters %+v", n)
				}
				// What fits the first link comes whole, and nothing tells that it
				// may be cut: it is lost until the sender has learned of the path.
				data := datagramRun(5, tooBig)
				if e := ends[side].try(0, data); e != 0 {
					t.Fatal(e)
				}
				b.wantTooBig(w.service.Name, 1)
				eventually(t, func() bool { return ends[side].pathMTU(t, w) == narrowMTU }, "the sender learns of the path")
				// IPv6 tells the socket also in this case, once (udpv6_err).
				eventually(t, func() bool { return ends[side].try(0, data) == 0 }, "the datagram is sent")
				ends[1-side].expect(t, 0, data)
			})
		}
	})
}

// TestUDPNarrowPathToServer has a router behind the proxy complain of what the
// proxy sends with the client's address. The client hears of it.
func TestUDPNarrowPathToServer(t *testing.T) {
	eachUDPWay(t, func(t *testing.T, w udpWay) {
		// Of the networks that are intercepted, but not the server's own.
		const net4, net6 = "198.18.3.128/25", "2001:db8:3:0:1::/80"
		far := addrPort("198.18.3.200", 4433)
		if w.client.Is6() {
			far = addrPort("2001:db8:3:0:1::200", 4433)
		}
		to := far
		if w.service.Mode == VIP {
			to = w.address
			w.service.Backends = []Backend{{Name: "far", Addr: far, Weight: 1}}
		}
		b := newBed(t, w.service)
		b.narrowNet(b.Server, lab.ServerIP4, lab.ServerIP6, net4, net6)
		c := b.peer(b.Client, netip.AddrPortFrom(w.client, 50000), to)
		c.dontFragment(t, w, true)
		if e := c.try(0, datagramRun(0, tooBig)); e != 0 {
			t.Fatal(e)
		}
		c.learns(t, w)
		b.wantTooBig(w.service.Name, 1)
		if e := c.try(0, datagramRun(0, tooBig)); e != unix.EMSGSIZE {
			t.Errorf("sending it again: %v, want %v", e, unix.EMSGSIZE)
		}
		before := b.udpCounts(w.service.Name)
		if e := c.try(0, datagramRun(1, largestPayload(w.client))); e != 0 {
			t.Fatal(e)
		}
		b.passed(w.service.Name, client, before, 1)
		if n := b.udpCounts(w.service.Name); n.dropped != 1 || n.flows != 1 || n.active != 1 {
			t.Errorf("counters %+v", n)
		}
	})
}

// TestUDPNarrowPathToClient has a router in front of the proxy complain of
// replies, which have the source that the client spoke to. The server hears of
// it.
func TestUDPNarrowPathToClient(t *testing.T) {
	eachUDPWay(t, func(t *testing.T, w udpWay) {
		from := addrPort("198.18.7.9", 50000)
		if w.client.Is6() {
			from = addrPort("2001:db8:7::9", 50000)
		}
		b := newBed(t, w.service)
		b.narrowNet(b.Client, lab.ClientIP4, lab.ClientIP6, "198.18.7.0/24", "2001:db8:7::/64")
		server := b.peer(b.Server, w.server, netip.AddrPort{})
		b.sendRaw(b.Client, from, w.address, []byte("hello"))
		if _, ok := server.next(); !ok {
			t.Fatal("the server hears nothing")
		}
		if e := sys.Connect(server.fd, server.rx.From(0)); e != 0 {
			t.Fatal(e)
		}
		server.dontFragment(t, w, true)
		eventually(t, func() bool {
			server.try(0, datagramRun(0, tooBig))
			return server.pathMTU(t, w) == narrowMTU
		}, "the server learns of the path")
		before := b.udpCounts(w.service.Name)
		eventually(t, func() bool { return server.try(0, datagramRun(0, largestPayload(w.client))) == 0 }, "what fits is sent")
		eventually(t, func() bool { return b.udpCounts(w.service.Name).out > before.out }, "what fits is passed on")
		if n := b.udpCounts(w.service.Name); n.drops[dropTooBig] == 0 || n.dropped != n.drops[dropTooBig] || n.flows != 1 || n.active != 1 {
			t.Errorf("counters %+v", n)
		}
	})
}
