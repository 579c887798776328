package sys

import (
	"net/netip"
	"os"

	"golang.org/x/sys/unix"
)

// PathMTU is the size of the largest packet that the host would send to the
// address to without fragmenting it, by what it has learned of the path
// (IP_MTU, ip(7)). from is the source, which may be foreign, or the zero
// Addr: then the host chooses. A mark other than 0 counts in choosing the
// route. Nothing is sent.
func PathMTU(to netip.AddrPort, from netip.Addr, mark uint32) (int, error) {
	mtu, call, e := pathMTU(to, from, mark)
	if e != 0 {
		return 0, os.NewSyscallError(call, e)
	}
	return mtu, nil
}

// pathMTU names the call that failed.
func pathMTU(to netip.AddrPort, from netip.Addr, mark uint32) (mtu int, call string, e Errno) {
	fd, call, e := routed(to, from, mark)
	if e != 0 {
		return 0, call, e
	}
	defer Close(fd)
	if Family(to.Addr()) == unix.AF_INET6 {
		mtu, e = getInt(fd, unix.SOL_IPV6, unix.IPV6_MTU)
		return mtu, "getsockopt(IPV6_MTU)", e
	}
	mtu, e = getInt(fd, unix.SOL_IP, unix.IP_MTU)
	return mtu, "getsockopt(IP_MTU)", e
}

// localAddress is the host's own address for packets to the address to.
func localAddress(to netip.AddrPort, mark uint32) (SockAddr, Errno) {
	var a SockAddr
	fd, _, e := routed(to, netip.Addr{}, mark)
	if e != 0 {
		return a, e
	}
	defer Close(fd)
	e = LocalName(fd, &a)
	return a, e
}

// routed opens a UDP socket whose packets take the route to the address to, or
// names the call that failed.
func routed(to netip.AddrPort, from netip.Addr, mark uint32) (fd int, call string, e Errno) {
	family := Family(to.Addr())
	fd, e = UDPSocket(family)
	if e != 0 {
		return -1, "socket", e
	}
	call, e = setRoute(fd, family, to, from, mark)
	if e != 0 {
		Close(fd)
		return -1, call, e
	}
	return fd, "", 0
}

// setRoute binds and connects fd. It names the call that failed.
func setRoute(fd, family int, to netip.AddrPort, from netip.Addr, mark uint32) (string, Errno) {
	if mark != 0 {
		if e := SetInt(fd, unix.SOL_SOCKET, unix.SO_MARK, int(mark)); e != 0 {
			return "setsockopt(SO_MARK)", e
		}
	}
	var sa SockAddr
	if from.IsValid() {
		if e := SetTransparent(fd, family); e != 0 {
			return "setsockopt(IP_TRANSPARENT)", e
		}
		sa.Set(netip.AddrPortFrom(from, 0))
		if e := Bind(fd, &sa); e != 0 {
			return "bind", e
		}
	}
	sa.Set(to)
	return "connect", Connect(fd, &sa)
}
