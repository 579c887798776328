package sys

import (
	"encoding/binary"
	"errors"
	"net/netip"

	"golang.org/x/sys/unix"
)

// ICMP sends error messages about datagrams, as a host or router in the path
// would (RFC 792, RFC 4443). It limits nothing: how many are sent is the
// caller's business (RFC 1812, 4.3.2.8; RFC 4443, 2.4 (f)). One thread uses
// it.
type ICMP struct {
	v4, v6 *packetSocket // nil without the family
	mark   uint32
	buf    [icmpMax6]byte
}

// The largest messages, with their IP header: what every host of the family
// takes (RFC 1812, 4.3.2.3; RFC 4443, 2.4 (c)).
const (
	icmpMax4 = 576
	icmpMax6 = 1280
)

// complaint is the head of an ICMP error for both families. The MTU of "too
// big" is the last 16 bits of the second word for IPv4 (RFC 1191), all of it
// for IPv6.
type complaint struct {
	kind4, code4, kind6, code6 byte
	mtu                        uint32
}

// OpenICMP opens the raw sockets to send with, by which nothing is received.
// It needs CAP_NET_RAW. A mark of 0 is none. A host without one of the
// families sends nothing in it: EAFNOSUPPORT.
func OpenICMP(mark uint32) (*ICMP, error) {
	c := &ICMP{mark: mark}
	var err error
	if c.v4, err = openPacketSocket(unix.AF_INET, mark); err != nil && !errors.Is(err, unix.EAFNOSUPPORT) {
		return nil, err
	}
	if c.v6, err = openPacketSocket(unix.AF_INET6, mark); err != nil && !errors.Is(err, unix.EAFNOSUPPORT) {
		c.Close()
		return nil, err
	}
	return c, nil
}

// Close closes the sockets.
func (c *ICMP) Close() {
	for _, p := range []*packetSocket{c.v4, c.v6} {
		if p != nil {
			Close(p.fd)
		}
	}
}

// PortUnreachable tells the sender of a datagram that nobody takes it. from
// and to are the datagram's source and destination: the message goes to from,
// and comes from to, as that host would send it.
func (c *ICMP) PortUnreachable(from, to netip.AddrPort, payload []byte) Errno {
	var source SockAddr
	source.Set(to)
	return c.send(&source, from, to, len(payload), payload, complaint{kind4: 3, code4: 3, kind6: 1, code6: 4})
}

// TooBig tells the sender of a datagram that packets to its destination may
// have only mtu bytes, IP header and all. from and to are the datagram's
// source and destination, size its payload's size, and payload as much of it
// as there is. The message comes from the host's own address, as from a
// router.
func (c *ICMP) TooBig(from, to netip.AddrPort, size, mtu int, payload []byte) Errno {
	source, e := localAddress(from, c.mark)
	if e != 0 {
		return e
	}
	return c.send(&source, from, to, size, payload, complaint{kind4: 3, code4: 4, kind6: 2, mtu: uint32(mtu)})
}

// send builds the message about a datagram from from to to and sends it to
// from. The datagram's own headers are made again, as nobody has kept them;
// the receiver finds its socket by their addresses and ports.
func (c *ICMP) send(source *SockAddr, from, to netip.AddrPort, size int, payload []byte, about complaint) Errno {
	family := Family(from.Addr())
	if family != Family(to.Addr()) || family == unix.AF_INET && c.v4 == nil || family == unix.AF_INET6 && c.v6 == nil {
		return unix.EAFNOSUPPORT
	}
	var src, dst SockAddr // of the datagram
	src.Set(from)
	dst.Set(to)
	if family == unix.AF_INET {
		b := c.buf[:icmpMax4]
		n := quote4(b[ip4Header+icmpHeader:], &src, &dst, size, payload, about)
		b = b[:ip4Header+icmpHeader+n]
		putICMP(b[ip4Header:], about.kind4, about.code4, about.mtu, 0)
		putIP4(b, source, &src, unix.IPPROTO_ICMP, 0, 0, len(b)-ip4Header)
		return c.v4.send(source, &src, b, nil)
	}
	b := c.buf[:icmpMax6]
	n := quote6(b[ip6Header+icmpHeader:], &src, &dst, size, payload)
	b = b[:ip6Header+icmpHeader+n]
	putICMP(b[ip6Header:], about.kind6, about.code6, about.mtu, pseudo(source, &src, unix.IPPROTO_ICMPV6, len(b)-ip6Header))
	putIP6(b, source, &src, unix.IPPROTO_ICMPV6, len(b)-ip6Header)
	return c.v6.send(source, &src, b, nil)
}

// quote4 writes the beginning of the datagram, as far as there is room.
func quote4(b []byte, src, dst *SockAddr, size int, payload []byte, about complaint) int {
	flags := uint16(0)
	if about.mtu != 0 {
		flags = dontFragment // or nobody would have complained
	}
	putIP4(b, src, dst, unix.IPPROTO_UDP, 0, flags, udpHeader+size)
	putUDP(b[ip4Header:], src, dst, payload, size)
	return ip4Header + udpHeader + copy(b[ip4Header+udpHeader:], payload)
}

func quote6(b []byte, src, dst *SockAddr, size int, payload []byte) int {
	putIP6(b, src, dst, unix.IPPROTO_UDP, udpHeader+size)
	putUDP(b[ip6Header:], src, dst, payload, size)
	return ip6Header + udpHeader + copy(b[ip6Header+udpHeader:], payload)
}

// putICMP writes the head of the message b and the checksum over all of it.
// seed is the sum of what else it covers.
func putICMP(b []byte, kind, code byte, mtu uint32, seed uint64) {
	b[0], b[1] = kind, code
	binary.BigEndian.PutUint16(b[2:], 0)
	binary.BigEndian.PutUint32(b[4:], mtu)
	binary.BigEndian.PutUint16(b[2:], fold(sum(seed, b)))
}
