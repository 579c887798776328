package sys

import (
	"bytes"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tproxyd/tproxyd/internal/lab"
)

// setMTU changes the MTU of a link at one end.
func setMTU(t testing.TB, h *lab.Host, link string, mtu int) {
	t.Helper()
	nl, err := h.Netlink()
	if err != nil {
		t.Fatal(err)
	}
	defer nl.Close()
	l, err := nl.LinkByName(link)
	if err == nil {
		err = nl.LinkSetMTU(l, mtu)
	}
	if err != nil {
		t.Fatalf("set MTU of %s: %v", link, err)
	}
}

// TestFragments sends over a link with a small MTU, with and without being
// allowed to fragment.
func TestFragments(t *testing.T) {
	eachUDP(t, func(t *testing.T, l *lab.Lab, f udpFamily) {
		const mtu = 1280
		setMTU(t, l.Proxy, lab.ServerLink, mtu)
		target := at(f.server, 40002)
		to := udpIn(t, l.Server, target, nowhere)
		if e := SetFragmentSize(to, f.family); e != 0 {
			t.Fatal(e)
		}
		from := listenUDP(t, at(f.client, 40001), true, false) // the client's address, as a flow has it
		if e := Connect(from, sockAddr(target)); e != 0 {
			t.Fatal(e)
		}
		if e := SetRecvErr(from, f.family); e != 0 {
			t.Fatal(e)
		}
		send := func(size int, want Errno) {
			t.Helper()
			if _, e := Send(from, pattern(size, 3), false); e != want {
				t.Fatalf("send %d bytes: %v, want %v", size, e, want)
			}
		}
		arrives := func(size int, fragmented bool) {
			t.Helper()
			a := receive(t, to, 1)[0]
			if !bytes.Equal(a.data, pattern(size, 3)) || a.from != at(f.client, 40001) {
				t.Errorf("%d bytes came from %v, want %d", len(a.data), a.from, size)
			}
			if n := a.control.Fragment; n != 0 != fragmented || n > mtu {
				t.Errorf("%d bytes: largest fragment %d; fragmented should be %v", size, n, fragmented)
			}
		}
		wire := startCapture(t, lab.ServerLink)
		sent := func(df bool) {
			t.Helper()
			wire.packets = nil
			wire.wait(t, 1)
			if p := wire.packets[0]; f.family == unix.AF_INET && p[6]&(dontFragment>>8) != 0 != df {
				t.Errorf("packet %x: DF should be %v", p[:ip4Header], df)
			}
		}
		fits := mtu - f.ipHeader - udpHeader
		send(fits, 0)
		arrives(fits, false)
		sent(true)
		send(fits+1, unix.EMSGSIZE)
		wantLocalError(t, from, f, mtu)
		if e := SetDontFragment(from, f.family, false); e != 0 {
			t.Fatal(e)
		}
		send(fits, 0)
		arrives(fits, false)
		sent(false)
		for _, size := range []int{fits + 1, 4000, f.largest} {
			send(size, 0)
			arrives(size, true)
		}
		if e := SetDontFragment(from, f.family, true); e != 0 {
			t.Fatal(e)
		}
		send(fits+1, unix.EMSGSIZE)
		wantSegmentsRefused(t, from, fits)
		send(fits, 0)
		arrives(fits, false)
	})
}

// wantLocalError looks for what the host itself says of a datagram that it did
// not send.
func wantLocalError(t *testing.T, fd int, f udpFamily, mtu uint32) {
	t.Helper()
	s, e := ReadError(fd, nil)
	if e != 0 {
		t.Fatal(e)
	}
	if s.Errno != unix.EMSGSIZE || s.Origin != unix.SO_EE_ORIGIN_LOCAL || s.Info != mtu || s.Offender.IsSet() || s.Dest.AddrPort() != at(f.server, 40002) {
		t.Errorf("%+v to %v", s, s.Dest.AddrPort())
	}
	if _, e := ReadError(fd, nil); e != unix.EAGAIN {
		t.Errorf("another entry: %v", e)
	}
}

// wantSegmentsRefused sends a run whose segments are a byte too large: a run
// is not fragmented.
func wantSegmentsRefused(t *testing.T, fd, fits int) {
	t.Helper()
	s := NewSender(1)
	s.Add(nil, fits+1, make([]byte, 3*(fits+1)))
	// EINVAL before Linux 6.14.
	if n, e := s.Send(fd, 0); n != 0 || e != unix.EMSGSIZE && e != unix.EINVAL {
		t.Errorf("%d runs sent, %v", n, e)
	}
}
