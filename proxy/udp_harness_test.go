package proxy

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/tproxyd/tproxyd/internal/lab"
)

// udpVIP returns a UDP service on the VIPs of both families with one backend
// of each.
func udpVIP(name string, port int) Service {
	return Service{
		Name: name, Protocol: UDP, Mode: VIP, Source: Client,
		IdleTimeout: time.Minute, UnrepliedTimeout: 30 * time.Second,
		Listen: []netip.AddrPort{addrPort(lab.VIP4, port), addrPort(lab.VIP6, port)},
		Backends: []Backend{
			{Name: "a4", Addr: addrPort(lab.ServerIP4, port), Weight: 1},
			{Name: "a6", Addr: addrPort(lab.ServerIP6, port), Weight: 1},
		},
	}
}

// udpIntercept returns a UDP service that gets what goes to the foreign
// addresses.
func udpIntercept() Service {
	s := udpVIP("any-udp", interceptPort)
	s.Mode, s.Backends = Intercept, nil
	s.Listen = []netip.AddrPort{addrPort("0.0.0.0", interceptPort), addrPort("::", interceptPort)}
	return s
}

// datagramServer answers datagrams to port 53 of the server; answer gets a
// datagram and its sender and returns the replies.
func (b *bed) datagramServer(answer func(data []byte, from netip.AddrPort) [][]byte) {
	b.t.Helper()
	for _, ip := range []string{lab.ServerIP4, lab.ServerIP6} {
		b.datagramServerOn(ip, 53, answer)
	}
}

func (b *bed) datagramServerOn(ip string, port int, answer func([]byte, netip.AddrPort) [][]byte) {
	b.t.Helper()
	conn := b.packetSocket(b.Server, addrPort(ip, port))
	var running sync.WaitGroup
	running.Go(func() {
		buf := make([]byte, 1<<16)
		for {
			n, from, err := conn.ReadFromUDPAddrPort(buf)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err != nil {
				continue // an ICMP error of an earlier reply
			}
			for _, reply := range answer(buf[:n], netip.AddrPortFrom(from.Addr().Unmap(), from.Port())) {
				_, _ = conn.WriteToUDPAddrPort(reply, from)
			}
		}
	})
	b.t.Cleanup(func() {
		conn.Close()
		running.Wait()
	})
}

// mirror sends each datagram back.
func mirror(data []byte, _ netip.AddrPort) [][]byte { return [][]byte{data} }

// whoami answers with the sender's address.
func whoami(_ []byte, from netip.AddrPort) [][]byte { return [][]byte{[]byte(from.String())} }

// talk connects a UDP socket of the client to address. Only what comes from
// there is received.
func (b *bed) talk(address netip.AddrPort) *net.UDPConn {
	b.t.Helper()
	return b.talkFrom("", address)
}

func (b *bed) talkFrom(local string, address netip.AddrPort) *net.UDPConn {
	b.t.Helper()
	c, err := b.Client.DialFrom(b.t.Context(), "udp", local, address.String())
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { c.Close() })
	return c.(*net.UDPConn)
}

// ask sends data and returns the next datagram.
func ask(t *testing.T, c *net.UDPConn, data []byte) []byte {
	t.Helper()
	if _, err := c.Write(data); err != nil {
		t.Fatal(err)
	}
	return receive(t, c)
}

// receive returns the next datagram.
func receive(t *testing.T, c *net.UDPConn) []byte {
	t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(patience))
	buf := make([]byte, 1<<16)
	n, err := c.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	return buf[:n]
}

// packetSocket opens a UDP socket on a host that is not connected.
func (b *bed) packetSocket(h *lab.Host, on netip.AddrPort) *net.UDPConn {
	b.t.Helper()
	pc, err := h.ListenPacket("udp", on.String())
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { _ = pc.Close() }) // it may be closed already
	return pc.(*net.UDPConn)
}

// clientIP is the client's address of the family of ip.
func clientIP(ip string) string {
	if netip.MustParseAddr(ip).Is4() {
		return lab.ClientIP4
	}
	return lab.ClientIP6
}

// udpCounts adds up a service's counters.
type udpCounts struct {
	flows, active    int64
	in, out          uint64
	gsoIn, gsoOut    uint64
	dropped, evicted uint64
	drops            [dropCount]uint64
	closed           [reasonCount]uint64
}

func (b *bed) udpCounts(service string) udpCounts {
	b.t.Helper()
	s := serviceStatsOf(b.t, b.proxy, service)
	sum := func(f func(*udpShard) uint64) uint64 {
		return s.total(func(sh *shard) uint64 { return f(&sh.udp) })
	}
	c := udpCounts{
		flows:  int64(sum(func(u *udpShard) uint64 { return u.flows.Load() })),
		active: s.flows.Load(),
		in:     sum(func(u *udpShard) uint64 { return u.datagrams[client].Load() }),
		out:    sum(func(u *udpShard) uint64 { return u.datagrams[upstream].Load() }),
		gsoIn:  sum(func(u *udpShard) uint64 { return u.segmented[client].Load() }),
		gsoOut: sum(func(u *udpShard) uint64 { return u.segmented[upstream].Load() }),
	}
	for d := range dropCount {
		c.drops[d] = sum(func(u *udpShard) uint64 { return u.dropped[d].Load() })
		c.dropped += c.drops[d]
	}
	for e := range evictionCount {
		c.evicted += sum(func(u *udpShard) uint64 { return u.evicted[e].Load() })
	}
	for r := range reasonCount {
		c.closed[r] = sum(func(u *udpShard) uint64 { return u.closed[r].Load() })
	}
	return c
}

// wantUDP waits until a service's counters are as ok wants them.
func (b *bed) wantUDP(service string, ok func(n udpCounts) bool) {
	b.t.Helper()
	defer func() {
		if b.t.Failed() {
			b.t.Logf("counters of %s: %+v", service, b.udpCounts(service))
		}
	}()
	eventually(b.t, func() bool { return ok(b.udpCounts(service)) }, "the counters are right")
}

// wantDrop waits until a service has dropped one datagram for a reason.
func (b *bed) wantDrop(service string, why drop) {
	b.t.Helper()
	eventually(b.t, func() bool { return b.udpCounts(service).drops[why] == 1 }, "a datagram is dropped for "+dropNames[why])
}

// wantEnds waits until n flows of a service have ended for a reason.
func (b *bed) wantEnds(service string, why Reason, n uint64) {
	b.t.Helper()
	eventually(b.t, func() bool { return b.udpCounts(service).closed[why] == n }, fmt.Sprintf("%d flows ended for %v", n, why))
}
