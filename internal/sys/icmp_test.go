package sys

import (
	"bytes"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tproxyd/tproxyd/internal/lab"
)

func openICMP(t testing.TB, mark uint32) *ICMP {
	t.Helper()
	c, err := OpenICMP(mark)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// TestPortUnreachable tells a client that a far host's port is closed.
func TestPortUnreachable(t *testing.T) {
	eachUDP(t, func(t *testing.T, l *lab.Lab, f udpFamily) {
		c := openICMP(t, 7)
		for _, p := range []*packetSocket{c.v4, c.v6} {
			if mark := get(t, p.fd, unix.SOL_SOCKET, unix.SO_MARK); mark != 7 {
				t.Errorf("mark %d", mark)
			}
		}
		from, to := at(f.client, 40001), at(f.foreign, 40002)
		client := udpIn(t, l.Client, from, to)
		if e := SetRecvErr(client, f.family); e != 0 {
			t.Fatal(e)
		}
		most := f.icmpMax - 2*f.ipHeader - icmpHeader - udpHeader
		for _, n := range []int{0, 1, 99, most, most + 1, 20000, f.largest} {
			data := pattern(n, 5)
			if e := c.PortUnreachable(from, to, data); e != 0 {
				t.Fatal(e)
			}
			s := readError(t, client)
			if s.Errno != unix.ECONNREFUSED || s.Origin != f.errOrigin || [2]uint8{s.Type, s.Code} != f.unreach {
				t.Errorf("%d bytes: %+v", n, s)
			}
			if s.Dest.AddrPort() != to || s.Offender.AddrPort().Addr() != to.Addr() {
				t.Errorf("%d bytes: to %v, by %v", n, s.Dest.AddrPort(), s.Offender.AddrPort())
			}
			if !bytes.Equal(s.Payload, data[:min(n, most)]) {
				t.Errorf("%d bytes: %d quoted, want %d", n, len(s.Payload), min(n, most))
			}
		}
		// A socket that asks for nothing is told too.
		plain := udpIn(t, l.Client, at(f.client, 40003), to)
		if e := c.PortUnreachable(at(f.client, 40003), to, nil); e != 0 {
			t.Fatal(e)
		}
		wantSocketError(t, plain, unix.ECONNREFUSED)
		// An ICMP message that comes to this host is not for these sockets.
		own := boundUDP(t, at(f.wildcard, 40004))
		if e := Connect(own, sockAddr(at(f.server, 40005))); e != 0 {
			t.Fatal(e)
		}
		if _, e := Send(own, nil, false); e != 0 {
			t.Fatal(e)
		}
		wantSocketError(t, own, unix.ECONNREFUSED)
		wantEmpty(t, c.v4.fd)
		wantEmpty(t, c.v6.fd)
	})
}

// TestTooBig lowers a client's idea of the path.
func TestTooBig(t *testing.T) {
	eachUDP(t, func(t *testing.T, l *lab.Lab, f udpFamily) {
		c := openICMP(t, 0)
		from, to := at(f.client, 40001), at(f.foreign, 40002)
		client := udpIn(t, l.Client, from, to)
		if e := SetRecvErr(client, f.family); e != 0 {
			t.Fatal(e)
		}
		if e := SetDontFragment(client, f.family, true); e != 0 {
			t.Fatal(e)
		}
		pathMTU := func(want int) {
			t.Helper()
			var got int
			err := l.Client.Do(func() (err error) {
				got, err = PathMTU(to, netip.Addr{}, 0)
				return err
			})
			if err != nil || got != want {
				t.Errorf("PathMTU is %d, %v; want %d", got, err, want)
			}
		}
		pathMTU(1500)
		data := pattern(1400, 6)
		const mtu = 1300
		// Only the beginning of the datagram is at hand.
		if e := c.TooBig(from, to, len(data), mtu, data[:100]); e != 0 {
			t.Fatal(e)
		}
		s := readError(t, client)
		if s.Errno != unix.EMSGSIZE || s.Origin != f.errOrigin || [2]uint8{s.Type, s.Code} != f.tooBig || s.Info != mtu {
			t.Errorf("%+v", s)
		}
		if s.Dest.AddrPort() != to || s.Offender.AddrPort().Addr() != netip.MustParseAddr(f.router) || !bytes.Equal(s.Payload, data[:100]) {
			t.Errorf("to %v, by %v, %d bytes quoted", s.Dest.AddrPort(), s.Offender.AddrPort(), len(s.Payload))
		}
		pathMTU(mtu)
		if _, e := Send(client, data, false); e != unix.EMSGSIZE {
			t.Errorf("sent again: %v", e)
		}
		if _, e := Send(client, data[:mtu-f.ipHeader-udpHeader], false); e != 0 {
			t.Errorf("a smaller one: %v", e)
		}
	})
}

// TestPathMTU has a foreign source, and what cannot be reached.
func TestPathMTU(t *testing.T) {
	eachUDP(t, func(t *testing.T, l *lab.Lab, f udpFamily) {
		setMTU(t, l.Proxy, lab.ServerLink, 1400)
		for _, from := range []netip.Addr{{}, netip.MustParseAddr(f.client)} {
			if mtu, err := PathMTU(at(f.server, 53), from, 9); mtu != 1400 || err != nil {
				t.Errorf("from %v: %d, %v", from, mtu, err)
			}
		}
		nobody := map[int]string{unix.AF_INET: "198.19.0.1", unix.AF_INET6: "2001:db8:dead::1"}[f.family]
		if mtu, err := PathMTU(at(nobody, 53), netip.Addr{}, 0); err == nil {
			t.Errorf("to nobody: %d", mtu)
		}
		other := map[int]string{unix.AF_INET: lab.ClientIP6, unix.AF_INET6: lab.ClientIP4}[f.family]
		if e := openICMP(t, 0).PortUnreachable(at(f.client, 1), at(other, 2), nil); e != unix.EAFNOSUPPORT {
			t.Errorf("from one family to the other: %v", e)
		}
		if e := openICMP(t, 0).TooBig(at(nobody, 1), at(f.server, 2), 0, 1300, nil); e != unix.ENETUNREACH {
			t.Errorf("tell nobody: %v", e)
		}
	})
}
