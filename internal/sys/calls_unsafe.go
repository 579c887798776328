package sys

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Errno is the kernel's answer; zero is success.
type Errno = syscall.Errno

// Recv reads what fd has, without waiting. Zero bytes and no errno is the end
// of the stream.
func Recv(fd int, b []byte) (int, Errno) {
	n, _, e := unix.RawSyscall6(unix.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)), unix.MSG_DONTWAIT, 0, 0)
	return int(n), e
}

// Send writes b to fd without waiting; it may take less than all of it. With
// more set the kernel holds an incomplete segment back, for what comes next:
// only right if that comes at once.
func Send(fd int, b []byte, more bool) (int, Errno) {
	flags := uintptr(unix.MSG_DONTWAIT | unix.MSG_NOSIGNAL)
	if more {
		flags |= unix.MSG_MORE
	}
	n, _, e := unix.RawSyscall6(unix.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)), flags, 0, 0)
	return int(n), e
}

// Splice moves up to n bytes between a pipe and a socket without waiting.
// SPLICE_F_MORE is never set: on the last bytes of a stream it would hold
// them back for 200 ms.
func Splice(from, to, n int) (int, Errno) {
	r, _, e := unix.RawSyscall6(unix.SYS_SPLICE, uintptr(from), 0, uintptr(to), 0, uintptr(n), unix.SPLICE_F_NONBLOCK|unix.SPLICE_F_MOVE)
	return int(r), e
}

// Tee copies up to n bytes of a pipe to another one, without waiting. They stay
// in the first; nothing but references to their pages is copied (tee(2)).
func Tee(from, to, n int) (int, Errno) {
	r, _, e := unix.RawSyscall6(unix.SYS_TEE, uintptr(from), uintptr(to), uintptr(n), unix.SPLICE_F_NONBLOCK, 0, 0)
	return int(r), e
}

// Write writes b to the non-blocking fd, which may take less than all of it.
func Write(fd int, b []byte) (int, Errno) {
	n, _, e := unix.RawSyscall(unix.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)))
	return int(n), e
}

// Discard throws away what the TCP socket fd has, without waiting and without
// copying it (MSG_TRUNC, tcp(7)). Zero bytes and no errno is the end of the
// stream.
func Discard(fd int) (int, Errno) {
	n, _, e := unix.RawSyscall6(unix.SYS_RECVFROM, uintptr(fd), 0, 1<<30, unix.MSG_DONTWAIT|unix.MSG_TRUNC, 0, 0)
	return int(n), e
}

// Accept takes one connection from the listening socket fd. The new socket is
// non-blocking; from receives the peer's address.
func Accept(fd int, from *SockAddr) (int, Errno) {
	from.len = uint32(unsafe.Sizeof(from.raw))
	n, _, e := unix.RawSyscall6(unix.SYS_ACCEPT4, uintptr(fd), uintptr(unsafe.Pointer(&from.raw)), uintptr(unsafe.Pointer(&from.len)), unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0, 0)
	return int(n), e
}

// Bind gives fd the local address to.
func Bind(fd int, to *SockAddr) Errno {
	_, _, e := unix.RawSyscall(unix.SYS_BIND, uintptr(fd), uintptr(unsafe.Pointer(&to.raw)), uintptr(to.len))
	return e
}

// Connect starts the connection of fd to the address to; EINPROGRESS is the
// usual answer.
func Connect(fd int, to *SockAddr) Errno {
	_, _, e := unix.RawSyscall(unix.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(&to.raw)), uintptr(to.len))
	return e
}

// LocalName stores the local address of fd in a. For a connection that came
// through a TPROXY rule that is the destination the client asked for.
func LocalName(fd int, a *SockAddr) Errno {
	a.len = uint32(unsafe.Sizeof(a.raw))
	_, _, e := unix.RawSyscall(unix.SYS_GETSOCKNAME, uintptr(fd), uintptr(unsafe.Pointer(&a.raw)), uintptr(unsafe.Pointer(&a.len)))
	return e
}

// PeerName stores the remote address of fd in a.
func PeerName(fd int, a *SockAddr) Errno {
	a.len = uint32(unsafe.Sizeof(a.raw))
	_, _, e := unix.RawSyscall(unix.SYS_GETPEERNAME, uintptr(fd), uintptr(unsafe.Pointer(&a.raw)), uintptr(unsafe.Pointer(&a.len)))
	return e
}

// TCPSocket opens a non-blocking TCP socket of the family AF_INET or AF_INET6.
func TCPSocket(family int) (int, Errno) {
	fd, _, e := unix.RawSyscall(unix.SYS_SOCKET, uintptr(family), unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
	return int(fd), e
}

// SetInt sets an option whose value is an int.
func SetInt(fd, level, option, value int) Errno {
	v := int32(value)
	_, _, e := unix.RawSyscall6(unix.SYS_SETSOCKOPT, uintptr(fd), uintptr(level), uintptr(option), uintptr(unsafe.Pointer(&v)), unsafe.Sizeof(v), 0)
	return e
}

// SocketError takes the pending error (SO_ERROR) of fd.
func SocketError(fd int) Errno {
	var v int32
	n := uint32(unsafe.Sizeof(v))
	_, _, e := unix.RawSyscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_ERROR, uintptr(unsafe.Pointer(&v)), uintptr(unsafe.Pointer(&n)), 0)
	if e != 0 {
		return e
	}
	return Errno(v)
}

// AbortOnClose makes the next Close of fd send RST instead of FIN (SO_LINGER
// with a zero time, socket(7)). What is still unsent is thrown away.
func AbortOnClose(fd int) Errno {
	l := unix.Linger{Onoff: 1}
	_, _, e := unix.RawSyscall6(unix.SYS_SETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_LINGER, uintptr(unsafe.Pointer(&l)), unsafe.Sizeof(l), 0)
	return e
}

// Unsent is the number of bytes written to fd that the peer has not
// acknowledged (SIOCOUTQ, tcp(7)).
func Unsent(fd int) (int, Errno) {
	var v int32
	_, _, e := unix.RawSyscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCOUTQ, uintptr(unsafe.Pointer(&v)))
	return int(v), e
}

// TCPInfo stores what the kernel knows of the connection fd in info (TCP_INFO,
// tcp(7)). What an older kernel does not tell is zero.
func TCPInfo(fd int, info *unix.TCPInfo) Errno {
	*info = unix.TCPInfo{}
	n := uint32(unsafe.Sizeof(*info))
	_, _, e := unix.RawSyscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_TCP, unix.TCP_INFO, uintptr(unsafe.Pointer(info)), uintptr(unsafe.Pointer(&n)), 0)
	return e
}

// ShutdownWrite sends FIN behind what was written to fd.
func ShutdownWrite(fd int) Errno {
	_, _, e := unix.RawSyscall(unix.SYS_SHUTDOWN, uintptr(fd), unix.SHUT_WR, 0)
	return e
}

// Close closes fd. Linux frees the descriptor whatever it answers.
func Close(fd int) {
	_, _, _ = unix.RawSyscall(unix.SYS_CLOSE, uintptr(fd), 0, 0)
}

// EpollPoll asks for events without waiting.
func EpollPoll(epfd int, events []unix.EpollEvent) (int, Errno) {
	n, _, e := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(epfd), uintptr(unsafe.Pointer(unsafe.SliceData(events))), uintptr(len(events)), 0, 0, 0)
	return int(n), e
}

// EpollAdd registers fd with user data of 64 bits.
func EpollAdd(epfd, fd int, ev *unix.EpollEvent) Errno {
	_, _, e := unix.RawSyscall6(unix.SYS_EPOLL_CTL, uintptr(epfd), unix.EPOLL_CTL_ADD, uintptr(fd), uintptr(unsafe.Pointer(ev)), 0, 0)
	return e
}
