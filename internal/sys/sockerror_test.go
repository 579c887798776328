package sys

import (
	"bytes"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tproxyd/tproxyd/internal/lab"
	"github.com/tproxyd/tproxyd/internal/netnstest"
)

// readError waits for an entry in the error queue.
func readError(t testing.TB, fd int) SockError {
	t.Helper()
	var s SockError
	payload := make([]byte, 1<<16)
	netnstest.Eventually(t, patience, func() bool {
		var e Errno
		if s, e = ReadError(fd, payload); e != 0 && e != unix.EAGAIN {
			t.Fatal(e)
		}
		return e == 0
	}, "an error is reported")
	return s
}

// TestReadError sends to a port that nobody has.
func TestReadError(t *testing.T) {
	eachUDP(t, func(t *testing.T, l *lab.Lab, f udpFamily) {
		target := at(f.server, 40002)
		from := udpIn(t, l.Client, at(f.client, 40001), target)
		if e := SetRecvErr(from, f.family); e != 0 {
			t.Fatal(e)
		}
		data := pattern(300, 9)
		if _, e := Send(from, data, false); e != 0 {
			t.Fatal(e)
		}
		s := readError(t, from)
		want := SockError{Errno: unix.ECONNREFUSED, Origin: f.errOrigin, Type: f.unreach[0], Code: f.unreach[1]}
		if s.Errno != want.Errno || s.Origin != want.Origin || s.Type != want.Type || s.Code != want.Code {
			t.Errorf("%+v, want %+v", s, want)
		}
		if s.Dest.AddrPort() != target || s.Offender.AddrPort().Addr() != target.Addr() {
			t.Errorf("to %v, by %v", s.Dest.AddrPort(), s.Offender.AddrPort())
		}
		if !bytes.Equal(s.Payload, data) {
			t.Errorf("%d bytes of the datagram", len(s.Payload))
		}
		// It is no longer the answer to another call.
		if e := SocketError(from); e != 0 {
			t.Errorf("SO_ERROR: %v", e)
		}
		if _, e := ReadError(from, nil); e != unix.EAGAIN {
			t.Errorf("another entry: %v", e)
		}
		// Taken by another call first, the entry stays.
		if _, e := Send(from, data, false); e != 0 {
			t.Fatal(e)
		}
		wantSocketError(t, from, unix.ECONNREFUSED)
		if s, e := ReadError(from, make([]byte, 10)); e != 0 || s.Errno != unix.ECONNREFUSED || !bytes.Equal(s.Payload, data[:10]) {
			t.Errorf("%+v, %v", s, e)
		}
	})
}
