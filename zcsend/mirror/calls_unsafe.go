package mirror

import (
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/tproxyd/tproxyd/internal/sys"
)

// message is struct mmsghdr (sendmmsg(2)).
type message struct {
	hdr unix.Msghdr
	n   uint32
}

// iovecPair is a packet: its headers, and its part of a frame.
type iovecPair [2]unix.Iovec

// sendmmsg does not wait, and does not tell the Go scheduler: see internal/sys.
func sendmmsg(fd int, m []message) (int, sys.Errno) {
	n, _, e := unix.RawSyscall6(unix.SYS_SENDMMSG, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(m))), uintptr(len(m)), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, 0, 0)
	if e != 0 {
		return 0, e
	}
	return int(n), 0
}

func iovec(b []byte) unix.Iovec {
	v := unix.Iovec{Base: unsafe.SliceData(b)}
	v.SetLen(len(b))
	return v
}
