package sys

import (
	"testing"

	"golang.org/x/sys/unix"
)

// TestTee holds that what was copied stays where it was, and that a pipe that is
// full takes less.
func TestTee(t *testing.T) {
	from, err := NewPipe(1 << 16)
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	to, err := NewPipe(1 << 12)
	if err != nil {
		t.Fatal(err)
	}
	defer to.Close()
	if n, e := Tee(from.R, to.W, 1); n > 0 || e != unix.EAGAIN {
		t.Errorf("of an empty pipe: %d, %v", n, e)
	}
	size := from.Size
	if n, e := Write(from.W, make([]byte, size)); n != size || e != 0 {
		t.Fatalf("%d bytes written, %v", n, e)
	}
	if n, e := Write(from.W, []byte("more")); e != unix.EAGAIN {
		t.Errorf("%d bytes written to a full pipe, %v", n, e)
	}
	n, e := Tee(from.R, to.W, size)
	if e != 0 || n != to.Size {
		t.Errorf("%d bytes copied to a pipe of %d, %v", n, to.Size, e)
	}
	if n, e := Tee(from.R, to.W, size); e != unix.EAGAIN {
		t.Errorf("%d bytes copied to a full pipe, %v", n, e)
	}
	b := make([]byte, 2*size)
	if n, err := unix.Read(from.R, b); n != size || err != nil {
		t.Errorf("%d bytes are left of %d, %v", n, size, err)
	}
}

// TestDiscard throws away a stream and sees its end.
func TestDiscard(t *testing.T) {
	ends, err := tcpPair(t)
	if err != nil {
		t.Fatal(err)
	}
	if n, e := Discard(ends[1]); e != unix.EAGAIN {
		t.Errorf("of nothing: %d, %v", n, e)
	}
	if n, e := Send(ends[0], make([]byte, 1000), false); n != 1000 || e != 0 {
		t.Fatalf("%d bytes sent, %v", n, e)
	}
	await(t, ends[1])
	if n, e := Discard(ends[1]); n != 1000 || e != 0 {
		t.Errorf("%d bytes discarded, %v", n, e)
	}
	ShutdownWrite(ends[0])
	await(t, ends[1])
	if n, e := Discard(ends[1]); n != 0 || e != 0 {
		t.Errorf("at the end: %d, %v", n, e)
	}
}

// await waits until fd can be read.
func await(t *testing.T, fd int) {
	t.Helper()
	if n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 10_000); n != 1 || err != nil {
		t.Fatalf("nothing comes: %v", err)
	}
}

// tcpPair connects two sockets by the loopback interface.
func tcpPair(t *testing.T) (ends [2]int, err error) {
	t.Helper()
	ln, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return ends, err
	}
	defer Close(ln)
	if err := unix.Bind(ln, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		return ends, err
	}
	if err := unix.Listen(ln, 1); err != nil {
		return ends, err
	}
	name, err := unix.Getsockname(ln)
	if err != nil {
		return ends, err
	}
	if ends[0], err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err != nil {
		return ends, err
	}
	t.Cleanup(func() { Close(ends[0]) })
	if err := unix.Connect(ends[0], name); err != nil {
		return ends, err
	}
	if ends[1], _, err = unix.Accept(ln); err != nil {
		return ends, err
	}
	t.Cleanup(func() { Close(ends[1]) })
	return ends, nil
}
