package sys

import (
	"net/netip"
	"os"

	"golang.org/x/sys/unix"
)

// listenBuffer is SO_RCVBUF of a listening socket: a burst that comes while
// the worker is busy. The kernel doubles it for its own overhead.
const listenBuffer = 4 << 20

// ListenUDP opens a transparent, non-blocking UDP socket bound to addr.
//
// With shared set, several such sockets of one user may have the same address
// and the kernel spreads clients over them (SO_REUSEPORT, socket(7));
// SO_REUSEADDR lets sockets of single flows share it too. Without it the bind
// fails with EADDRINUSE if anybody has the address and port, which is how a
// foreign owner is found out.
//
// With origDst each datagram comes with the address it was sent to, as a
// TPROXY rule leaves it in the packet. Always reported are: loss by a full
// queue (SO_RXQ_OVFL), the size of fragments (IP_RECVFRAGSIZE), and runs of
// datagrams if the kernel makes them (UDP_GRO). What is sent has DF set; see
// SetDontFragment. A v6 socket takes no v4-mapped traffic.
func ListenUDP(addr netip.AddrPort, shared, origDst bool) (int, error) {
	family := Family(addr.Addr())
	fd, e := UDPSocket(family)
	if e != 0 {
		return -1, os.NewSyscallError("socket", e)
	}
	err := setAll(fd, listenUDPOptions(family, shared, origDst))
	if err == nil {
		err = setListenExtras(fd, family)
	}
	if err == nil {
		var sa SockAddr
		sa.Set(addr)
		// The last step, as the first datagram may come with it.
		if e := Bind(fd, &sa); e != 0 {
			err = os.NewSyscallError("bind", e)
		}
	}
	if err != nil {
		Close(fd)
		return -1, err
	}
	return fd, nil
}

func listenUDPOptions(family int, shared, origDst bool) []option {
	options := []option{{"SO_RXQ_OVFL", unix.SOL_SOCKET, unix.SO_RXQ_OVFL, 1}}
	if shared {
		options = append(options,
			option{"SO_REUSEADDR", unix.SOL_SOCKET, unix.SO_REUSEADDR, 1},
			option{"SO_REUSEPORT", unix.SOL_SOCKET, unix.SO_REUSEPORT, 1})
	}
	if family == unix.AF_INET6 {
		options = append(options,
			option{"IPV6_V6ONLY", unix.SOL_IPV6, unix.IPV6_V6ONLY, 1},
			option{"IPV6_TRANSPARENT", unix.SOL_IPV6, unix.IPV6_TRANSPARENT, 1},
			option{"IPV6_RECVFRAGSIZE", unix.SOL_IPV6, unix.IPV6_RECVFRAGSIZE, 1})
		if origDst {
			options = append(options, option{"IPV6_RECVORIGDSTADDR", unix.SOL_IPV6, unix.IPV6_RECVORIGDSTADDR, 1})
		}
		return options
	}
	options = append(options,
		option{"IP_TRANSPARENT", unix.SOL_IP, unix.IP_TRANSPARENT, 1},
		option{"IP_RECVFRAGSIZE", unix.SOL_IP, unix.IP_RECVFRAGSIZE, 1})
	if origDst {
		options = append(options, option{"IP_RECVORIGDSTADDR", unix.SOL_IP, unix.IP_RECVORIGDSTADDR, 1})
	}
	return options
}

// setListenExtras sets the options that have a function of their own.
func setListenExtras(fd, family int) error {
	if e := SetGRO(fd); e != 0 && e != unix.ENOPROTOOPT {
		return os.NewSyscallError("setsockopt(UDP_GRO)", e)
	}
	if e := SetDontFragment(fd, family, true); e != 0 {
		return os.NewSyscallError("setsockopt(IP_MTU_DISCOVER)", e)
	}
	if e := SetReceiveBuffer(fd, listenBuffer); e != 0 {
		return os.NewSyscallError("setsockopt(SO_RCVBUF)", e)
	}
	return nil
}

// SetGRO has fd receive runs of datagrams of one sender and one size at a time
// (UDP_GRO, udp(7)). ENOPROTOOPT: the kernel is older than 5.0.
func SetGRO(fd int) Errno { return SetInt(fd, unix.SOL_UDP, unix.UDP_GRO, 1) }

// GROSupported tries UDP_GRO on a socket of its own.
func GROSupported() bool { return tryUDP(unix.UDP_GRO, 1) }

// GSOSupported tries UDP_SEGMENT (Linux 4.18) on a socket of its own. A device
// may still refuse a message with EIO or EINVAL.
func GSOSupported() bool { return tryUDP(unix.UDP_SEGMENT, 1200) }

func tryUDP(option, value int) bool {
	fd, e := UDPSocket(unix.AF_INET)
	if e == unix.EAFNOSUPPORT {
		fd, e = UDPSocket(unix.AF_INET6)
	}
	if e != 0 {
		return false
	}
	defer Close(fd)
	return SetInt(fd, unix.SOL_UDP, option, value) == 0
}

// SetDontFragment decides about datagrams larger than the path: on, sending
// one fails with EMSGSIZE and DF is set on all (IP_PMTUDISC_DO, ip(7)); off,
// it leaves in fragments, to the size that the host knows of the path, and
// routers may fragment further (IPv4).
//
// Off is IP_PMTUDISC_DONT for IPv4, as IP_PMTUDISC_WANT sets DF on what fits.
// There is no DF in IPv6, and IPV6_PMTUDISC_WANT is the default.
func SetDontFragment(fd, family int, on bool) Errno {
	if family == unix.AF_INET6 {
		value := unix.IPV6_PMTUDISC_WANT
		if on {
			value = unix.IPV6_PMTUDISC_DO
		}
		return SetInt(fd, unix.SOL_IPV6, unix.IPV6_MTU_DISCOVER, value)
	}
	value := unix.IP_PMTUDISC_DONT
	if on {
		value = unix.IP_PMTUDISC_DO
	}
	return SetInt(fd, unix.SOL_IP, unix.IP_MTU_DISCOVER, value)
}

// SetFragmentSize has fd tell of fragmented datagrams (Control.Fragment).
func SetFragmentSize(fd, family int) Errno {
	if family == unix.AF_INET6 {
		return SetInt(fd, unix.SOL_IPV6, unix.IPV6_RECVFRAGSIZE, 1)
	}
	return SetInt(fd, unix.SOL_IP, unix.IP_RECVFRAGSIZE, 1)
}

// SetPacketInfo has fd tell by which interface a datagram came in
// (Control.Interface).
func SetPacketInfo(fd, family int) Errno {
	if family == unix.AF_INET6 {
		return SetInt(fd, unix.SOL_IPV6, unix.IPV6_RECVPKTINFO, 1)
	}
	return SetInt(fd, unix.SOL_IP, unix.IP_PKTINFO, 1)
}

// SetRecvErr has fd keep ICMP errors and local ones for ReadError (IP_RECVERR,
// ip(7)). Sending then also reports a full queue of the device, as ENOBUFS.
func SetRecvErr(fd, family int) Errno {
	if family == unix.AF_INET6 {
		return SetInt(fd, unix.SOL_IPV6, unix.IPV6_RECVERR, 1)
	}
	return SetInt(fd, unix.SOL_IP, unix.IP_RECVERR, 1)
}

// SetReceiveBuffer makes the receive queue hold that many bytes, as the kernel
// counts them: beyond net.core.rmem_max with CAP_NET_ADMIN (SO_RCVBUFFORCE),
// else up to it.
func SetReceiveBuffer(fd, bytes int) Errno {
	e := SetInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, bytes)
	if e == unix.EPERM {
		e = SetInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, bytes)
	}
	return e
}
