package sys

import (
	"encoding/binary"
	"os"

	"golang.org/x/sys/unix"
)

// Sizes of headers, and the lifetime that packets of ours start with: the
// kernel's default for both families.
const (
	ip4Header  = 20
	ip6Header  = 40
	fragHeader = 8
	udpHeader  = 8
	icmpHeader = 8
	hopLimit   = 64
)

// The flags in an IPv4 header's fragment offset (RFC 791).
const (
	dontFragment  = 0x4000
	moreFragments = 0x2000
)

// packetSocket sends whole IP packets of one family from any source address
// and receives nothing (see rawSocket). One thread uses it.
type packetSocket struct {
	fd, family int
	to         SockAddr
	iovecs     [2]unix.Iovec
	control    [pktinfoSpace]byte
}

// pktinfoSpace is the room of an IPV6_PKTINFO control message, the larger of
// the two.
const pktinfoSpace = 40

// openPacketSocket needs CAP_NET_RAW. A mark of 0 is none.
func openPacketSocket(family int, mark uint32) (*packetSocket, error) {
	fd, e := rawSocket(family)
	if e != 0 {
		return nil, os.NewSyscallError("socket(SOCK_RAW)", e)
	}
	options := []option{{"IP_TRANSPARENT", unix.SOL_IP, unix.IP_TRANSPARENT, 1}}
	if family == unix.AF_INET6 {
		options[0] = option{"IPV6_TRANSPARENT", unix.SOL_IPV6, unix.IPV6_TRANSPARENT, 1}
	}
	if mark != 0 {
		options = append(options, option{"SO_MARK", unix.SOL_SOCKET, unix.SO_MARK, int(mark)})
	}
	if err := setAll(fd, options); err != nil {
		Close(fd)
		return nil, err
	}
	return &packetSocket{fd: fd, family: family}, nil
}

// send sends the packet of a header and a body. The kernel takes the source
// from the header, and from here only for choosing the route, so that rules by
// source address hold for these packets too.
func (p *packetSocket) send(src, dst *SockAddr, header, body []byte) Errno {
	p.to = *dst
	p.to.raw.Port = 0 // a protocol here, rawv6_sendmsg()
	p.iovecs = [...]unix.Iovec{Iovec(header), Iovec(body)}
	m := unix.Msghdr{Name: p.to.name(), Namelen: p.to.len, Iov: &p.iovecs[0], Control: &p.control[0]}
	m.SetIovlen(len(p.iovecs))
	m.SetControllen(p.route(src))
	return sendmsg(p.fd, &m)
}

// route fills in the control message that names the source, and returns the
// space it takes.
func (p *packetSocket) route(src *SockAddr) int {
	ip, zone, _, _ := src.Parts()
	if p.family == unix.AF_INET6 {
		b := putCmsg(p.control[:], unix.SOL_IPV6, unix.IPV6_PKTINFO, unix.SizeofInet6Pktinfo)
		copy(b, ip[:])
		binary.NativeEndian.PutUint32(b[16:], zone)
		return unix.CmsgSpace(len(b))
	}
	b := putCmsg(p.control[:], unix.SOL_IP, unix.IP_PKTINFO, unix.SizeofInet4Pktinfo)
	copy(b[4:8], ip[12:]) // ipi_spec_dst
	return unix.CmsgSpace(len(b))
}

// putIP4 writes an IPv4 header. flags are DF or MF and the offset in units of
// 8 bytes; length is of what follows the header.
func putIP4(b []byte, src, dst *SockAddr, protocol byte, id, flags uint16, length int) {
	s, _, _, _ := src.Parts()
	d, _, _, _ := dst.Parts()
	clear(b[:ip4Header])
	b[0] = 4<<4 | ip4Header/4
	binary.BigEndian.PutUint16(b[2:], uint16(ip4Header+length))
	binary.BigEndian.PutUint16(b[4:], id)
	binary.BigEndian.PutUint16(b[6:], flags)
	b[8], b[9] = hopLimit, protocol
	copy(b[12:16], s[12:])
	copy(b[16:20], d[12:])
	binary.BigEndian.PutUint16(b[10:], fold(sum(0, b[:ip4Header])))
}

// putIP6 writes an IPv6 header.
func putIP6(b []byte, src, dst *SockAddr, next byte, length int) {
	s, _, _, _ := src.Parts()
	d, _, _, _ := dst.Parts()
	clear(b[:8])
	b[0] = 6 << 4
	binary.BigEndian.PutUint16(b[4:], uint16(length))
	b[6], b[7] = next, hopLimit
	copy(b[8:24], s[:])
	copy(b[24:40], d[:])
}

// putUDP writes a UDP header for a payload of length bytes, of which b has the
// checksum only if all of it is there: none at all is 0 (RFC 768).
func putUDP(b []byte, src, dst *SockAddr, payload []byte, length int) {
	_, _, from, _ := src.Parts()
	_, _, to, _ := dst.Parts()
	binary.BigEndian.PutUint16(b, from)
	binary.BigEndian.PutUint16(b[2:], to)
	binary.BigEndian.PutUint16(b[4:], uint16(udpHeader+length))
	binary.BigEndian.PutUint16(b[6:], 0)
	if len(payload) < length {
		return
	}
	c := fold(sum(sum(pseudo(src, dst, unix.IPPROTO_UDP, udpHeader+length), b[:udpHeader]), payload))
	if c == 0 {
		c = 0xffff // 0 would say that there is none
	}
	binary.BigEndian.PutUint16(b[6:], c)
}

// pseudo is the sum of the pseudo header (RFC 768; RFC 8200, 8.1).
func pseudo(src, dst *SockAddr, protocol byte, length int) uint64 {
	s, _, _, v4 := src.Parts()
	d, _, _, _ := dst.Parts()
	n := uint64(protocol) + uint64(length)
	if v4 {
		return sum(sum(n, s[12:]), d[12:])
	}
	return sum(sum(n, s[:]), d[:])
}

// sum adds b, in words of 32 bits, to a sum that fold ends (RFC 1071). Only
// the last b of a message may have an odd length. 2^32 words would overflow
// it; a message has 2^14.
func sum(n uint64, b []byte) uint64 {
	for len(b) >= 4 {
		n += uint64(binary.BigEndian.Uint32(b))
		b = b[4:]
	}
	if len(b) > 0 {
		var tail [4]byte
		copy(tail[:], b)
		n += uint64(binary.BigEndian.Uint32(tail[:]))
	}
	return n
}

// fold is the checksum of a sum.
func fold(n uint64) uint16 {
	for n > 0xffff {
		n = n>>16 + n&0xffff
	}
	return ^uint16(n)
}
