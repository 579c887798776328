package sys

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// Message is struct mmsghdr (recvmmsg(2)).
type Message struct {
	Hdr unix.Msghdr
	N   uint32 // bytes received or sent; the kernel's
}

// UDPSocket opens a non-blocking UDP socket of the family AF_INET or AF_INET6.
func UDPSocket(family int) (int, Errno) {
	fd, _, e := unix.RawSyscall(unix.SYS_SOCKET, uintptr(family), unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, unix.IPPROTO_UDP)
	return int(fd), e
}

// SendTo sends one datagram to the address to without waiting; to the peer of
// a connected socket if it is nil.
func SendTo(fd int, to *SockAddr, b []byte) Errno {
	var length uint32
	if to != nil {
		length = to.len
	}
	// A nil to has the address 0, as raw is its first field.
	_, _, e := unix.RawSyscall6(unix.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, uintptr(unsafe.Pointer(to)), uintptr(length))
	return e
}

func recvmmsg(fd int, m []Message) (int, Errno) {
	n, _, e := unix.RawSyscall6(unix.SYS_RECVMMSG, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(m))), uintptr(len(m)), unix.MSG_DONTWAIT, 0, 0)
	return int(n), e
}

// SendMessages sends as many of m as fd takes without waiting, and returns how many
// (sendmmsg(2)).
func SendMessages(fd int, m []Message) (int, Errno) {
	n, _, e := unix.RawSyscall6(unix.SYS_SENDMMSG, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(m))), uintptr(len(m)), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, 0, 0)
	if e != 0 {
		return 0, e
	}
	return int(n), 0
}

func sendmsg(fd int, m *unix.Msghdr) Errno {
	_, _, e := unix.RawSyscall(unix.SYS_SENDMSG, uintptr(fd), uintptr(unsafe.Pointer(m)), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
	return e
}

func recvError(fd int, m *unix.Msghdr) (int, Errno) {
	n, _, e := unix.RawSyscall(unix.SYS_RECVMSG, uintptr(fd), uintptr(unsafe.Pointer(m)), unix.MSG_ERRQUEUE|unix.MSG_DONTWAIT)
	return int(n), e
}

func getInt(fd, level, option int) (int, Errno) {
	var v int32
	n := uint32(unsafe.Sizeof(v))
	_, _, e := unix.RawSyscall6(unix.SYS_GETSOCKOPT, uintptr(fd), uintptr(level), uintptr(option), uintptr(unsafe.Pointer(&v)), uintptr(unsafe.Pointer(&n)), 0)
	return int(v), e
}

// rawSocket opens a raw socket that is given whole packets, IP header and all,
// and is nobody's to receive from: no protocol has the number IPPROTO_RAW
// (raw(7); IP_HDRINCL is implied for both families).
func rawSocket(family int) (int, Errno) {
	fd, _, e := unix.RawSyscall(unix.SYS_SOCKET, uintptr(family), unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
	return int(fd), e
}

// Iovec is b for a Msghdr.
func Iovec(b []byte) unix.Iovec {
	v := unix.Iovec{Base: unsafe.SliceData(b)}
	v.SetLen(len(b))
	return v
}

func iovecData(v *unix.Iovec) []byte { return unsafe.Slice(v.Base, int(v.Len)) }

// name is the address for a Msghdr's Name.
func (a *SockAddr) name() *byte { return (*byte)(unsafe.Pointer(&a.raw)) }
