package tap

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/tproxyd/tproxyd/internal/packet"
	"github.com/tproxyd/tproxyd/internal/tpacket"
)

// endsOf orders the ends of a leg, and says whether the source is the lower one.
func endsOf(protocol uint8, src, dst netip.AddrPort) (e packet.Ends, sourceLow bool) {
	a, b := src.Addr().As16(), dst.Addr().As16()
	return packet.NewEnds(protocol, &a, &b, src.Port(), dst.Port())
}

// Flags of TCP.
const (
	flagFIN = 1
	flagSYN = 2
	flagACK = 16
)

// segment is what a packet says of its flow.
type segment struct {
	key       packet.Ends
	sourceLow bool
	flags     uint8
	seq       uint32
	header    int // bytes before the payload
	payload   int // bytes on the wire, also of what was cut off
}

// opens says whether a segment may be the first of a flow.
func (s *segment) opens() bool { return s.key.Protocol != unix.IPPROTO_TCP || s.flags&flagSYN != 0 }

// maxTags is how many VLAN tags a flow may be behind.
const maxTags = 2

// parse finds the flow of a packet. Fragments other than the first have no
// ports and belong to none; nor has a packet with extension headers of IPv6.
func (s *segment) parse(f tpacket.Frame) bool {
	b := f.Data()
	be := binary.BigEndian
	at := 12
	for range maxTags {
		if len(b) < at+2 || !isTag(be.Uint16(b[at:])) {
			break
		}
		at += 4
	}
	if len(b) < at+2 {
		return false
	}
	ip := b[at+2:]
	var src, dst [16]byte
	var protocol uint8
	l4, total := 0, 0
	switch be.Uint16(b[at:]) {
	case unix.ETH_P_IP:
		if len(ip) < 20 || be.Uint16(ip[6:])&0x1fff != 0 {
			return false
		}
		l4, total, protocol = int(ip[0]&15)*4, int(be.Uint16(ip[2:])), ip[9]
		src[10], src[11], dst[10], dst[11] = 0xff, 0xff, 0xff, 0xff
		copy(src[12:], ip[12:16])
		copy(dst[12:], ip[16:20])
		if l4 < 20 {
			return false
		}
	case unix.ETH_P_IPV6:
		if len(ip) < 40 {
			return false
		}
		l4, total, protocol = 40, int(be.Uint16(ip[4:])), ip[6]
		src, dst = [16]byte(ip[8:]), [16]byte(ip[24:])
		if total > 0 {
			total += 40
		}
	default:
		return false
	}
	if len(ip) < l4+8 {
		return false
	}
	if total == 0 { // longer than the field can say
		total = f.Len() - (at + 2)
	}
	h := ip[l4:]
	s.header, s.flags = at+2+l4+8, 0
	s.payload = total - l4 - 8
	switch protocol {
	case unix.IPPROTO_UDP:
		// The first fragment of a datagram says how long the whole is.
		if n := int(be.Uint16(h[4:])) - 8; n > s.payload {
			s.payload = n
		}
	case unix.IPPROTO_TCP:
		if len(h) < 20 {
			return false
		}
		size := int(h[12]>>4) * 4
		if size < 20 {
			return false
		}
		s.seq, s.flags = be.Uint32(h[4:]), h[13]
		s.header, s.payload = at+2+l4+size, total-l4-size
	default:
		return false
	}
	s.payload = max(s.payload, 0)
	s.key, s.sourceLow = packet.NewEnds(protocol, &src, &dst, be.Uint16(h), be.Uint16(h[2:]))
	return true
}

func isTag(etherType uint16) bool {
	return etherType == unix.ETH_P_8021Q || etherType == unix.ETH_P_8021AD
}
