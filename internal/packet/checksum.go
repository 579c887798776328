package packet

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// Sum adds b, in words of 32 bits, to a sum that [Fold] ends (RFC 1071). Only
// the last b of a message may have an odd length. A sum of 2^32 words would
// overflow; a frame has 2^16.
func Sum(n uint64, b []byte) uint64 {
	for len(b) >= 4 {
		n += uint64(binary.BigEndian.Uint32(b))
		b = b[4:]
	}
	switch len(b) {
	case 3:
		n += uint64(b[0])<<24 | uint64(b[1])<<16 | uint64(b[2])<<8
	case 2:
		n += uint64(b[0])<<24 | uint64(b[1])<<16
	case 1:
		n += uint64(b[0]) << 24
	}
	return n
}

// Fold makes a sum a checksum.
func Fold(n uint64) uint16 {
	for n > 0xffff {
		n = n>>16 + n&0xffff
	}
	return ^uint16(n)
}

// Pseudo is the sum of the pseudo header of a transport's checksum, with the
// addresses as they stand in the frame, for length bytes (RFC 768; RFC 8200,
// 8.1).
func (l *Layout) Pseudo(frame []byte, length int) uint64 {
	src, dst := l.Addresses(frame)
	return Sum(Sum(uint64(l.Protocol)+uint64(length), src), dst)
}

// ChecksumOffset is where the transport has its checksum, from L4 on.
func (l *Layout) ChecksumOffset() (offset int, ok bool) {
	switch {
	case l.L4 == 0:
		return 0, false
	case l.Protocol == unix.IPPROTO_TCP:
		return 16, true
	case l.Protocol == unix.IPPROTO_UDP:
		return 6, true
	case l.Protocol == unix.IPPROTO_ICMP && !l.V6, l.Protocol == unix.IPPROTO_ICMPV6 && l.V6:
		return 2, true
	}
	return 0, false
}

// SetIPv4Checksum computes the checksum of an IPv4 header. It does nothing to
// other frames.
func (l *Layout) SetIPv4Checksum(frame []byte) {
	if !l.IP || l.V6 {
		return
	}
	h := frame[l.L3 : l.L3+int(frame[l.L3]&15)*4]
	h[10], h[11] = 0, 0
	binary.BigEndian.PutUint16(h[10:], Fold(Sum(0, h)))
}

// SetChecksums computes the checksums of the IPv4 header and of TCP, UDP, ICMP
// and ICMPv6. It is false if the transport's could not be: of a fragment or a
// frame cut short only a part of what it covers is there.
func (l *Layout) SetChecksums(frame []byte) bool {
	l.SetIPv4Checksum(frame)
	offset, ok := l.ChecksumOffset()
	if !ok || l.Fragment || l.Truncated {
		return false
	}
	end := l.End
	if l.Protocol == unix.IPPROTO_UDP {
		// What is behind the UDP length is not the datagram's (RFC 768).
		length := int(binary.BigEndian.Uint16(frame[l.L4+4:]))
		if length < UDPHeader || l.L4+length > end {
			return false
		}
		end = l.L4 + length
	}
	body := frame[l.L4:end]
	body[offset], body[offset+1] = 0, 0
	n := Sum(0, body)
	if l.Protocol != unix.IPPROTO_ICMP {
		n += l.Pseudo(frame, len(body))
	}
	c := Fold(n)
	if c == 0 && l.Protocol == unix.IPPROTO_UDP {
		c = 0xffff // 0 would say that there is none
	}
	binary.BigEndian.PutUint16(body[offset:], c)
	return true
}

// Adjust makes a checksum right again after a part of what it covers has
// changed from was to is, both of one even length and at an even offset
// (RFC 1624, equation 3).
func Adjust(checksum uint16, was, is []byte) uint16 {
	n := uint64(^checksum)
	for i := 0; i+1 < len(was) && i+1 < len(is); i += 2 {
		n += uint64(^binary.BigEndian.Uint16(was[i:])) + uint64(binary.BigEndian.Uint16(is[i:]))
	}
	return Fold(n)
}
