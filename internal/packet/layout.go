package packet

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// Sizes of headers without options.
const (
	EthernetHeader = 14
	VLANTag        = 4
	IPv4Header     = 20
	IPv6Header     = 40
	UDPHeader      = 8
	TCPHeader      = 20
	ICMPHeader     = 8
)

// maxTags and maxExtensions bound the work that one frame can ask for.
const (
	maxTags       = 4
	maxExtensions = 8
)

// The EtherTypes that this package follows. 0x9100 is QinQ from before
// IEEE 802.1ad.
const (
	typeIPv4    = unix.ETH_P_IP
	typeIPv6    = unix.ETH_P_IPV6
	typeVLAN    = unix.ETH_P_8021Q
	typeService = unix.ETH_P_8021AD
	typeOldQinQ = 0x9100
)

// Layout says where the headers of a frame are. The zero value of an offset
// means that there is no such header: only L3 of a frame that is no Ethernet
// could be 0, and there is none here.
type Layout struct {
	EtherType uint16 // behind the VLAN tags
	L3        int    // the IP or ARP header, or whatever EtherType says
	V6        bool   // L3 is IPv6 and not IPv4; only with IP set
	IP        bool   // L3 is an IP header that is there as a whole
	Protocol  byte   // of the transport: unix.IPPROTO_TCP and so on
	L4        int    // the transport header; 0 in a fragment other than the first
	Payload   int    // what TCP or UDP carries; 0 if that header is not whole
	End       int    // the end of the IP packet; behind it is padding
	Fragment  bool   // a part of a datagram, also the first
	Truncated bool   // the frame has less than the IP packet's length
}

// IsVLAN says whether an EtherType begins a VLAN tag.
func IsVLAN(etherType uint16) bool {
	return etherType == typeVLAN || etherType == typeService || etherType == typeOldQinQ
}

// Parse finds the headers of an Ethernet frame. It is false for one that has
// no whole Ethernet header, its tags included.
func Parse(frame []byte) (Layout, bool) {
	var l Layout
	if len(frame) < EthernetHeader {
		return l, false
	}
	l.EtherType = binary.BigEndian.Uint16(frame[12:])
	l.L3 = EthernetHeader
	for range maxTags {
		if !IsVLAN(l.EtherType) {
			break
		}
		if len(frame) < l.L3+VLANTag {
			return l, false
		}
		l.EtherType = binary.BigEndian.Uint16(frame[l.L3+2:])
		l.L3 += VLANTag
	}
	l.End = len(frame)
	switch l.EtherType {
	case typeIPv4:
		l.ipv4(frame)
	case typeIPv6:
		l.ipv6(frame)
	}
	return l, true
}

func (l *Layout) ipv4(frame []byte) {
	h := frame[l.L3:]
	if len(h) < IPv4Header || h[0]>>4 != 4 {
		return
	}
	size := int(h[0]&15) * 4
	total := int(binary.BigEndian.Uint16(h[2:]))
	if size < IPv4Header || len(h) < size || total < size {
		return
	}
	l.IP = true
	l.ends(frame, l.L3+total)
	fragment := binary.BigEndian.Uint16(h[6:]) & 0x3fff
	l.Fragment = fragment != 0
	l.transport(frame, l.L3+size, h[9], fragment&0x1fff == 0)
}

func (l *Layout) ipv6(frame []byte) {
	h := frame[l.L3:]
	if len(h) < IPv6Header || h[0]>>4 != 6 {
		return
	}
	l.IP, l.V6 = true, true
	l.ends(frame, l.L3+IPv6Header+int(binary.BigEndian.Uint16(h[4:])))
	next, at, first := h[6], l.L3+IPv6Header, true
	for range maxExtensions {
		switch next {
		case unix.IPPROTO_HOPOPTS, unix.IPPROTO_ROUTING, unix.IPPROTO_DSTOPTS, unix.IPPROTO_FRAGMENT:
		default:
			l.transport(frame, at, next, first)
			return
		}
		if at+8 > l.End {
			l.Protocol = next
			return
		}
		e := frame[at:l.End]
		size := 8 + int(e[1])*8
		if next == unix.IPPROTO_FRAGMENT {
			size = 8
			offset := binary.BigEndian.Uint16(e[2:])
			l.Fragment = offset&0xfff9 != 0
			first = offset>>3 == 0
		}
		next, at = e[0], at+size
	}
	l.Protocol = next
}

// ends sets the end of the IP packet, which padding may follow.
func (l *Layout) ends(frame []byte, end int) {
	l.Truncated = end > len(frame)
	l.End = min(end, len(frame))
}

// transport notes the transport header at an offset, if it is there.
func (l *Layout) transport(frame []byte, at int, protocol byte, first bool) {
	l.Protocol = protocol
	if !first || at > l.End {
		return
	}
	rest := l.End - at
	switch protocol {
	case unix.IPPROTO_TCP:
		if rest < TCPHeader {
			return
		}
		size := int(frame[at+12]>>4) * 4
		if size >= TCPHeader && size <= rest {
			l.Payload = at + size
		}
	case unix.IPPROTO_UDP:
		if rest < UDPHeader {
			return
		}
		l.Payload = at + UDPHeader
	case unix.IPPROTO_ICMP, unix.IPPROTO_ICMPV6:
		if rest < ICMPHeader {
			return
		}
	default:
		return
	}
	l.L4 = at
}

// Addresses returns the source and destination of the IP header, of 4 or 16
// bytes each, as parts of the frame. They are nil if there is none.
func (l *Layout) Addresses(frame []byte) (src, dst []byte) {
	switch {
	case !l.IP:
		return nil, nil
	case l.V6:
		return frame[l.L3+8 : l.L3+24], frame[l.L3+24 : l.L3+40]
	}
	return frame[l.L3+12 : l.L3+16], frame[l.L3+16 : l.L3+20]
}
