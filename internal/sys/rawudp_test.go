package sys

import (
	"bytes"
	"errors"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tproxyd/tproxyd/internal/lab"
)

func openRawUDP(t testing.TB, family int, mark uint32) *RawUDP {
	t.Helper()
	r, err := OpenRawUDP(family, mark)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	return r
}

// TestRawUDP answers a client from an address and port that another socket of
// this host has.
func TestRawUDP(t *testing.T) {
	eachUDP(t, func(t *testing.T, l *lab.Lab, f udpFamily) {
		from, to := at(f.router, 53), at(f.client, 40001)
		owner := listenUDP(t, from, false, false)
		if fd, err := ListenUDP(from, true, false); !errors.Is(err, unix.EADDRINUSE) {
			Close(fd)
			t.Fatalf("the address is not owned: %v", err)
		}
		client := udpIn(t, l.Client, to, from)
		if e := SetFragmentSize(client, f.family); e != 0 {
			t.Fatal(e)
		}
		r := openRawUDP(t, f.family, 7)
		if mark := get(t, r.socket.fd, unix.SOL_SOCKET, unix.SO_MARK); mark != 7 {
			t.Errorf("mark %d", mark)
		}
		send := func(n int, fragmented bool) {
			t.Helper()
			data := pattern(n, byte(n))
			if e := r.Send(sockAddr(from), sockAddr(to), data); e != 0 {
				t.Fatalf("send %d bytes: %v", n, e)
			}
			a := receive(t, client, 1)[0]
			if !bytes.Equal(a.data, data) || a.from != from || a.control.Truncated {
				t.Errorf("%d bytes came as %d from %v", n, len(a.data), a.from)
			}
			if a.control.Fragment != 0 != fragmented {
				t.Errorf("%d bytes: largest fragment %d; fragmented should be %v", n, a.control.Fragment, fragmented)
			}
		}
		fits := 1500 - f.ipHeader - udpHeader
		for _, n := range []int{0, 1, 2, 3, 4, 5, 700, rawWhole - f.ipHeader - udpHeader, rawWhole, fits - 1, fits} {
			send(n, false)
		}
		for _, n := range []int{fits + 1, fits + 9, 2 * 1448, 5000, 9999, f.largest - 1, f.largest} {
			send(n, true)
		}
		if e := r.Send(sockAddr(from), sockAddr(to), make([]byte, f.largest+1)); e != unix.EMSGSIZE {
			t.Errorf("a byte more: %v", e)
		}
		other := map[int]string{unix.AF_INET: lab.ClientIP6, unix.AF_INET6: lab.ClientIP4}[f.family]
		if e := r.Send(sockAddr(from), sockAddr(at(other, 1)), nil); e != unix.EAFNOSUPPORT {
			t.Errorf("from one family to the other: %v", e)
		}
		setMTU(t, l.Proxy, lab.ClientLink, 1280)
		send(1280-f.ipHeader-udpHeader, false)
		send(1280-f.ipHeader-udpHeader+1, true)
		if f.family == unix.AF_INET {
			setMTU(t, l.Proxy, lab.ClientLink, 576) // less than what is sent unasked
			send(576-f.ipHeader-udpHeader, false)
			send(1000, true)
		}

		// What comes in is its owner's alone.
		if _, e := Send(client, []byte("question"), false); e != 0 {
			t.Fatal(e)
		}
		if a := receive(t, owner, 1)[0]; string(a.data) != "question" || a.from != to {
			t.Errorf("%q from %v", a.data, a.from)
		}
		wantEmpty(t, r.socket.fd)
		wantEmpty(t, owner)
	})
}

// TestRawUDPForeign has a source that is nobody's on this host.
func TestRawUDPForeign(t *testing.T) {
	eachUDP(t, func(t *testing.T, l *lab.Lab, f udpFamily) {
		from, to := at(f.foreign, 53), at(f.client, 40001)
		client := udpIn(t, l.Client, to, from)
		r := openRawUDP(t, f.family, 0)
		for _, n := range []int{10, 1400, 4000} {
			if e := r.Send(sockAddr(from), sockAddr(to), pattern(n, 1)); e != 0 {
				t.Fatalf("send %d bytes: %v", n, e)
			}
			if a := receive(t, client, 1)[0]; !bytes.Equal(a.data, pattern(n, 1)) || a.from != from {
				t.Errorf("%d bytes came as %d from %v", n, len(a.data), a.from)
			}
		}
	})
}
