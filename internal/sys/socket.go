package sys

import (
	"fmt"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// SetTransparent allows fd to use an address that is not the host's own
// (IP_TRANSPARENT, IPV6_TRANSPARENT; ip(7)). It needs CAP_NET_RAW or
// CAP_NET_ADMIN.
func SetTransparent(fd, family int) Errno {
	if family == unix.AF_INET {
		return SetInt(fd, unix.SOL_IP, unix.IP_TRANSPARENT, 1)
	}
	return SetInt(fd, unix.SOL_IPV6, unix.IPV6_TRANSPARENT, 1)
}

// option is one setsockopt call with the name to report when it fails.
type option struct {
	name                 string
	level, number, value int
}

// ListenTCP opens a transparent, non-blocking listening socket on addr.
//
// With shared set, several such sockets of one user may listen on the same
// address and the kernel spreads connections over them (SO_REUSEPORT,
// socket(7)). Without it the call fails with EADDRINUSE if anybody listens
// there, which is how a second instance finds out.
//
// The accepted sockets inherit the options set here, at no cost for each of
// them: TCP_NODELAY; SO_OOBINLINE, so that an urgent byte keeps its place in
// the stream; SO_KEEPALIVE and its times; TCP_USER_TIMEOUT. TCP_QUICKACK off
// starts them in the interactive mode in which the first request is
// acknowledged by its answer and not by a packet of its own.
func ListenTCP(addr netip.AddrPort, backlog int, shared bool) (int, error) {
	family := Family(addr.Addr())
	fd, e := TCPSocket(family)
	if e != 0 {
		return -1, os.NewSyscallError("socket", e)
	}
	options := []option{
		{"SO_REUSEADDR", unix.SOL_SOCKET, unix.SO_REUSEADDR, 1},
		{"TCP_NODELAY", unix.SOL_TCP, unix.TCP_NODELAY, 1},
		{"SO_OOBINLINE", unix.SOL_SOCKET, unix.SO_OOBINLINE, 1},
	}
	if family == unix.AF_INET6 {
		options = append(options,
			option{"IPV6_V6ONLY", unix.SOL_IPV6, unix.IPV6_V6ONLY, 1},
			option{"IPV6_TRANSPARENT", unix.SOL_IPV6, unix.IPV6_TRANSPARENT, 1})
	} else {
		options = append(options, option{"IP_TRANSPARENT", unix.SOL_IP, unix.IP_TRANSPARENT, 1})
	}
	if shared {
		options = append(options, option{"SO_REUSEPORT", unix.SOL_SOCKET, unix.SO_REUSEPORT, 1})
	}
	err := setAll(fd, options)
	if err == nil {
		var sa SockAddr
		sa.Set(addr)
		if e := Bind(fd, &sa); e != 0 {
			err = os.NewSyscallError("bind", e)
		}
	}
	if err == nil {
		err = os.NewSyscallError("listen", unix.Listen(fd, backlog))
	}
	if err == nil {
		// listen resets the state of acknowledgements, so this comes after it.
		err = setAll(fd, []option{{"TCP_QUICKACK", unix.SOL_TCP, unix.TCP_QUICKACK, 0}})
	}
	if err != nil {
		Close(fd)
		return -1, err
	}
	return fd, nil
}

func setAll(fd int, options []option) error {
	for _, o := range options {
		if e := SetInt(fd, o.level, o.number, o.value); e != 0 {
			return os.NewSyscallError("setsockopt("+o.name+")", e)
		}
	}
	return nil
}

// Liveness says how a peer that fell silent is found out.
type Liveness struct {
	Keepalive   time.Duration // TCP_KEEPIDLE, in whole seconds; probes follow at a third of it (TCP_KEEPINTVL); 0: no keepalive
	UserTimeout time.Duration // TCP_USER_TIMEOUT for unacknowledged data and probes; 0: the kernel's
}

// SetLiveness sets l on fd; on a listening socket the accepted ones inherit
// it. The first option that fails is returned.
func SetLiveness(fd int, l Liveness) error {
	alive := option{"SO_KEEPALIVE", unix.SOL_SOCKET, unix.SO_KEEPALIVE, 0}
	if l.Keepalive > 0 {
		seconds := int((l.Keepalive + time.Second - 1) / time.Second)
		times := [...]option{
			{"TCP_KEEPIDLE", unix.SOL_TCP, unix.TCP_KEEPIDLE, seconds},
			{"TCP_KEEPINTVL", unix.SOL_TCP, unix.TCP_KEEPINTVL, max(1, seconds/3)},
		}
		if err := setAll(fd, times[:]); err != nil {
			return err
		}
		alive.value = 1
	}
	patience := option{"TCP_USER_TIMEOUT", unix.SOL_TCP, unix.TCP_USER_TIMEOUT, int(l.UserTimeout.Milliseconds())}
	both := [...]option{alive, patience}
	return setAll(fd, both[:])
}

// Route returns the error that keeps packets of this host from being sent to
// the address to: ENETUNREACH, EADDRNOTAVAIL without a source address of the
// family, and so on. It sends nothing: a UDP socket is connected, which does not
// depend on a free TCP port.
func Route(to netip.AddrPort) Errno {
	fd, _, e := unix.RawSyscall(unix.SYS_SOCKET, uintptr(Family(to.Addr())), unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if e != 0 {
		return e
	}
	defer Close(int(fd))
	var sa SockAddr
	sa.Set(to)
	return Connect(int(fd), &sa)
}

// CheckTransparent tries what the data plane needs: IP_TRANSPARENT and, for a
// mark other than 0, SO_MARK. It names the capability that is missing.
func CheckTransparent(mark uint32) error {
	fd, e := TCPSocket(unix.AF_INET)
	family := unix.AF_INET
	if e == unix.EAFNOSUPPORT {
		family = unix.AF_INET6
		fd, e = TCPSocket(family)
	}
	if e != 0 {
		return os.NewSyscallError("socket", e)
	}
	defer Close(fd)
	switch e := SetTransparent(fd, family); e {
	case 0:
	case unix.EPERM:
		return fmt.Errorf("setsockopt(IP_TRANSPARENT): %w: capability CAP_NET_RAW is missing", e)
	case unix.ENOPROTOOPT:
		return fmt.Errorf("setsockopt(IP_TRANSPARENT): %w: this kernel has no transparent proxying", e)
	default:
		return os.NewSyscallError("setsockopt(IP_TRANSPARENT)", e)
	}
	if mark == 0 {
		return nil
	}
	switch e := SetInt(fd, unix.SOL_SOCKET, unix.SO_MARK, int(mark)); e {
	case 0:
		return nil
	case unix.EPERM:
		return fmt.Errorf("setsockopt(SO_MARK): %w: capability CAP_NET_RAW (kernel 5.17 and later) or CAP_NET_ADMIN is missing", e)
	default:
		return os.NewSyscallError("setsockopt(SO_MARK)", e)
	}
}
