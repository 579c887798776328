package proxy

import (
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/tproxyd/tproxyd/internal/lab"
	"github.com/tproxyd/tproxyd/internal/sys"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// answer returns what p hears: a datagram, or the error that came instead.
func (p *peer) answer(t *testing.T) (string, sys.Errno) {
	t.Helper()
	var e sys.Errno
	eventually(t, func() bool {
		// With IP_RECVERR, the socket is readable a moment before the error is
		// the answer of a call (__udp4_lib_err).
		_, e = p.rx.Receive(p.fd, 0)
		return e != unix.EAGAIN
	}, "an answer or an error")
	if e != 0 {
		return "", e
	}
	return string(p.rx.Data(0)), 0
}

// wantNoFlows waits until nothing is left of a service's flows.
func (b *bed) wantNoFlows(service string) {
	b.t.Helper()
	eventually(b.t, func() bool { return b.udpCounts(service).active == 0 }, "all flows end")
	b.proxy.each(func(w *worker) {
		for _, table := range w.udp.tables {
			if len(table.flows) != 0 || table.oldest() != nil {
				b.t.Errorf("worker %d: flows left in a table", w.id)
			}
		}
		if w.udp.flows.live != 0 || w.stats.flowSockets.Load() != 0 {
			b.t.Errorf("worker %d: %d flows and %d sockets left", w.id, w.udp.flows.live, w.stats.flowSockets.Load())
		}
	})
	for i := range b.proxy.tuples {
		sh := &b.proxy.tuples[i]
		sh.mu.Lock()
		if len(sh.set) != 0 {
			b.t.Errorf("4-tuples left: %v", sh.set)
		}
		sh.mu.Unlock()
	}
}

// TestUDPPortClosed has no server. The client hears of it by ICMP, as from the
// address that it spoke to, and the flow ends.
func TestUDPPortClosed(t *testing.T) {
	eachUDPWay(t, func(t *testing.T, w udpWay) {
		b := newBed(t, w.service)
		b.unlimitedICMP(b.Server)
		c := b.peer(b.Client, netip.AddrPortFrom(w.client, 50000), w.address)
		if e := sys.SetRecvErr(c.fd, sys.Family(w.client)); e != 0 {
			t.Fatal(e)
		}
		if e := c.try(0, []byte("anybody?")); e != 0 {
			t.Fatal(e)
		}
		if got, e := c.answer(t); e != unix.ECONNREFUSED {
			t.Errorf("the client hears %q and %v, want %v", got, e, unix.ECONNREFUSED)
		}
		var said [64]byte
		se, e := sys.ReadError(c.fd, said[:])
		kind, code := uint8(3), uint8(3)
		if w.client.Is6() {
			kind, code = 1, 4
		}
		if e != 0 || se.Type != kind || se.Code != code || se.Offender.AddrPort().Addr() != w.address.Addr() || se.Dest.AddrPort() != w.address || string(se.Payload) != "anybody?" {
			t.Errorf("the client got %+v from %v about %v, %v", se, se.Offender.AddrPort(), se.Dest.AddrPort(), e)
		}
		b.wantEnds(w.service.Name, PortUnreachable, 1)
		b.wantNoFlows(w.service.Name)
		if r := b.record(); r.Reason != PortUnreachable.String() || r.DatagramsIn != 1 || r.DatagramsOut != 0 {
			t.Errorf("record %+v", r)
		}
		// The port is free again, and so is the next flow.
		server := b.peer(b.Server, w.server, netip.AddrPort{})
		ends := [2]*peer{client: c, upstream: server}
		b.pass(ends, client, 0, []byte("and now?"))
		if n := b.udpCounts(w.service.Name); n.flows != 2 || n.active != 1 || n.dropped != 0 {
			t.Errorf("counters %+v", n)
		}
	})
}

// TestUDPPortClosedGoesOn has the flow after one that met a closed port go to
// the next backend.
func TestUDPPortClosedGoesOn(t *testing.T) {
	families(t, lab.VIP4, lab.VIP6, func(t *testing.T, ip string) {
		s := udpVIP("dns", 53)
		s.Backends = pool(ip, 90, 91, 53)
		b := newBed(t, s)
		b.unlimitedICMP(b.Server)
		b.datagramServer(mirror)
		refused := b.untilAnswered(t, ip, s)
		// One worker begins with the first backend, the other with the second.
		if refused < 1 || refused > 2 {
			t.Errorf("%d datagrams met a closed port, want 1 or 2", refused)
		}
		b.wantEnds("dns", PortUnreachable, refused)
		b.wantTries("dns", "b53", map[string]uint64{"ok": 1})
		b.wantTries("dns", "b91", map[string]uint64{"refused": 1})
		if n := b.udpCounts("dns"); n.active != 1 || n.flows != int64(refused)+1 || n.dropped != 0 {
			t.Errorf("counters %+v", n)
		}
	})
}

// untilAnswered asks until there is an answer, and returns how often the port
// was closed.
func (b *bed) untilAnswered(t *testing.T, ip string, s Service) (refused uint64) {
	t.Helper()
	c := b.peer(b.Client, addrPort(clientIP(ip), 50000), addrPort(ip, 53))
	for range len(s.Backends) {
		if e := c.try(0, []byte("who?")); e != 0 {
			t.Fatal(e)
		}
		switch got, e := c.answer(t); e {
		case 0:
			if got != "who?" {
				t.Errorf("the answer is %q", got)
			}
			return refused
		case unix.ECONNREFUSED:
			refused++
		default:
			t.Fatal(e)
		}
	}
	t.Fatal("no backend answers")
	return 0
}

// Networks that nobody has, but that are intercepted.
const (
	deadNet4, deadHost4 = "198.18.3.128/25", "198.18.3.200"
	deadNet6, deadHost6 = "2001:db8:3:0:1::/80", "2001:db8:3:0:1::200"
)

// TestUDPHostUnreachable has a router behind the proxy that knows no way. A
// flow without a reply ends, and the next one goes to the next backend.
func TestUDPHostUnreachable(t *testing.T) {
	eachUDPWay(t, func(t *testing.T, w udpWay) {
		dead := addrPort(deadHost4, 4433)
		if w.client.Is6() {
			dead = addrPort(deadHost6, 4433)
		}
		to, name, ends := dead, originalBackend, uint64(1)
		if w.service.Mode == VIP {
			to, name = w.address, "dead2"
			w.service.Backends = []Backend{{Name: "dead1", Addr: dead, Weight: 1}, {Name: name, Addr: netip.AddrPortFrom(dead.Addr(), 1), Weight: 1}, {Name: "good", Addr: w.server, Weight: 1}}
		}
		b := newBed(t, w.service)
		b.deadNet(deadNet4, deadNet6)
		server := b.peer(b.Server, w.server, netip.AddrPort{})
		c := b.peer(b.Client, netip.AddrPortFrom(w.client, 50000), to)
		ask := func(n uint64) {
			if e := c.try(0, []byte("anybody?")); e != 0 {
				t.Fatal(e)
			}
			b.wantEnds(w.service.Name, ConnectUnreachable, n)
			b.wantNoFlows(w.service.Name)
		}
		ask(ends)
		if w.service.Mode == VIP {
			// A worker begins with the first backend, or with the second.
			if b.tries(w.service.Name, "dead1")["unreachable"] == 1 {
				ends++
				ask(ends)
			}
			if e := c.try(0, []byte("anybody?")); e != 0 {
				t.Fatal(e)
			}
			server.expect(t, 0, []byte("anybody?"))
		}
		b.wantTries(w.service.Name, name, map[string]uint64{"unreachable": 1})
		if n := b.udpCounts(w.service.Name); n.closed[ConnectUnreachable] != ends || n.dropped != 0 {
			t.Errorf("counters %+v", n)
		}
	})
}

// TestUDPUnreachableForAWhile has the way to a server break and come back. A
// flow that had replies lives on.
func TestUDPUnreachableForAWhile(t *testing.T) {
	for _, w := range udpWays() {
		if w.service.Mode == VIP {
			continue // the server does without a backend's address less easily
		}
		t.Run(w.name(), func(t *testing.T) {
			b := newBed(t, w.service)
			ends := b.converse(w)
			b.unlimitedICMP(b.Server)
			ip := netlink.NewIPNet(w.server.Addr().AsSlice())
			addr := &netlink.Addr{IPNet: ip, Flags: unix.IFA_F_NODAD}
			gone := &netlink.Route{Dst: ip, Type: unix.RTN_UNREACHABLE}
			b.onLinks(b.Server, func(nl *netlink.Handle) error {
				lo, err := nl.LinkByName("lo")
				if err != nil {
					return err
				}
				return errors.Join(nl.AddrDel(lo, addr), nl.RouteAdd(gone))
			})
			before := b.icmpErrors(b.Proxy, w.client)
			for range 3 {
				if e := ends[client].try(0, []byte("anybody?")); e != 0 {
					t.Fatal(e)
				}
			}
			eventually(t, func() bool { return b.icmpErrors(b.Proxy, w.client) > before }, "a router complains")
			b.onLinks(b.Server, func(nl *netlink.Handle) error {
				lo, err := nl.LinkByName("lo")
				if err != nil {
					return err
				}
				return errors.Join(nl.RouteDel(gone), nl.AddrAdd(lo, addr))
			})
			// An IPv6 address takes a while to be there.
			eventually(t, func() bool {
				return ends[client].try(0, []byte("back?")) == 0 && ends[upstream].waitFor(ends[upstream].fd, 100*time.Millisecond)
			}, "the server is reached again")
			b.pass(ends, upstream, 0, []byte("yes"))
			if n := b.udpCounts(w.service.Name); n.flows != 1 || n.active != 1 {
				t.Errorf("counters %+v", n)
			}
		})
	}
}

// TestUDPClientGone has replies for a client whose socket is closed. Where the
// flow has a socket of its own towards the client, it ends.
func TestUDPClientGone(t *testing.T) {
	families(t, lab.ForeignIP4, lab.ForeignIP6, func(t *testing.T, ip string) {
		b := newBed(t, udpIntercept())
		b.unlimitedICMP(b.Client)
		server := b.peer(b.Server, addrPort(ip, 4433), netip.AddrPort{})
		c := b.talk(addrPort(ip, 4433))
		if _, err := c.Write([]byte("hello")); err != nil {
			t.Fatal(err)
		}
		server.expect(t, 0, []byte("hello"))
		if e := sys.Connect(server.fd, server.rx.From(0)); e != 0 {
			t.Fatal(e)
		}
		c.Close()
		if e := server.try(0, []byte("hello?")); e != 0 {
			t.Fatal(e)
		}
		b.wantEnds("any-udp", ClientReset, 1)
		b.wantNoFlows("any-udp")
		if r := b.record(); r.Reason != ClientReset.String() || r.DatagramsIn != 1 || r.DatagramsOut != 1 {
			t.Errorf("record %+v", r)
		}
	})
}

// TestUDPErrorsAreBounded has a client that takes no heed of what it is told.
// It is not told more often than icmpPerSecond.
func TestUDPErrorsAreBounded(t *testing.T) {
	const datagrams, atOnce = 3 * icmpPerSecond, 50
	families(t, lab.VIP4, lab.VIP6, func(t *testing.T, ip string) {
		b := newBed(t, udpVIP("dns", 53))
		b.narrowLink(upstream)
		from := addrPort(clientIP(ip), 50000)
		c := b.peer(b.Client, from, addrPort(ip, 53))
		level, option := unix.SOL_IP, unix.IP_MTU_DISCOVER
		if from.Addr().Is6() {
			level, option = unix.SOL_IPV6, unix.IPV6_MTU_DISCOVER
		}
		if e := sys.SetInt(c.fd, level, option, unix.IP_PMTUDISC_PROBE); e != 0 { // the same number for IPv6
			t.Fatal(e)
		}
		data := datagramRun(0, tooBig)
		before := b.icmpErrors(b.Client, from.Addr())
		start := time.Now()
		for sent := 0; sent < datagrams; {
			for range atOnce {
				if e := c.try(0, data); e == 0 {
					sent++
				} else if e != unix.EMSGSIZE { // what it is told
					t.Fatal(e)
				}
			}
			b.wantTooBig("dns", sent)
		}
		// One flow is one worker's, which has taken so many seconds at most.
		most := icmpPerSecond * (1 + uint64(time.Since(start)/time.Second))
		told := func() uint64 { return b.icmpErrors(b.Client, from.Addr()) - before }
		eventually(t, func() bool { return told() >= icmpPerSecond }, "the client is told")
		if n := told(); n > most {
			t.Errorf("the client was told %d times, want %d at most", n, most)
		}
	})
}
