package zcsend

import (
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/tproxyd/tproxyd/internal/sys"
)

// None of these calls waits, so they do not tell the Go scheduler, like those
// of internal/sys: it would cost more than the call, where that sends a single
// frame. A batch of 64 holds up a garbage collection by about 0.1 ms.

// kick makes the kernel send what is in a ring, without waiting for it.
func kick(fd int) sys.Errno {
	_, _, e := unix.RawSyscall6(unix.SYS_SENDTO, uintptr(fd), 0, 0, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, 0, 0)
	return e
}

// vmsplice puts the pages of b into a pipe, by reference.
func vmsplice(pipe int, b []byte) (int, sys.Errno) {
	v := sys.Iovec(b)
	n, _, e := unix.RawSyscall6(unix.SYS_VMSPLICE, uintptr(pipe), uintptr(unsafe.Pointer(&v)), 1, unix.SPLICE_F_NONBLOCK, 0, 0)
	return int(n), e
}

// header is the beginning of a slot of a ring.
func header(slot []byte) *unix.Tpacket2Hdr {
	return (*unix.Tpacket2Hdr)(unsafe.Pointer(unsafe.SliceData(slot)))
}

// iovecPair is what one message of mmsg consists of: its virtio header and its
// frame.
type iovecPair [2]unix.Iovec
