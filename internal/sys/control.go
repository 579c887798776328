package sys

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// Control is what the kernel says about a received datagram or run of
// datagrams, in control messages (cmsg(3)).
type Control struct {
	Segment   int      // UDP_GRO: the data is a run of datagrams of this size, the last may be shorter; 0: one datagram
	Dest      SockAddr // IP_ORIGDSTADDR, IPV6_ORIGDSTADDR: where it was sent to; only if HasDest
	HasDest   bool
	Overflow  uint32 // SO_RXQ_OVFL: what the socket's queue had lost before this one came, modulo 2^32; a GRO run lost counts as one
	Fragment  int    // IP_RECVFRAGSIZE: size of the largest fragment, with its IP header; 0: it arrived whole
	Interface int    // IP_PKTINFO: number of the interface it came in by; 0 if SetPacketInfo was not called
	Truncated bool   // MSG_TRUNC or MSG_CTRUNC: data or control messages were cut off
}

// controlSpace holds all control messages that a socket of ListenUDP asks
// for, and those of the other family for one that takes both.
const controlSpace = 256

// cmsgWord is the size of cmsg_len, a size_t; cmsg_level and cmsg_type follow.
const cmsgWord = unix.SizeofCmsghdr - 8

// cmsg is one control message.
type cmsg struct {
	level, kind int
	data        []byte
}

// nextCmsg takes the first control message of b. It returns false at the end,
// and for a length that does not fit: what is behind cannot be found then.
func nextCmsg(b []byte) (m cmsg, rest []byte, ok bool) {
	if len(b) < unix.SizeofCmsghdr {
		return cmsg{}, nil, false
	}
	var size uint64
	if cmsgWord == 8 {
		size = binary.NativeEndian.Uint64(b)
	} else {
		size = uint64(binary.NativeEndian.Uint32(b))
	}
	if size < unix.SizeofCmsghdr || size > uint64(len(b)) {
		return cmsg{}, nil, false
	}
	m = cmsg{
		level: int(int32(binary.NativeEndian.Uint32(b[cmsgWord:]))),
		kind:  int(int32(binary.NativeEndian.Uint32(b[cmsgWord+4:]))),
		data:  b[unix.SizeofCmsghdr:size],
	}
	// The next one is aligned; behind the last, the padding may be missing.
	aligned := unix.CmsgSpace(int(size) - unix.SizeofCmsghdr)
	return m, b[min(aligned, len(b)):], true
}

// putCmsg writes the header of a control message whose data has n bytes, and
// returns the place for the data. The space is zero behind it up to the next.
func putCmsg(b []byte, level, kind, n int) []byte {
	clear(b[:unix.CmsgSpace(n)])
	if cmsgWord == 8 {
		binary.NativeEndian.PutUint64(b, uint64(unix.SizeofCmsghdr+n))
	} else {
		binary.NativeEndian.PutUint32(b, uint32(unix.SizeofCmsghdr+n))
	}
	binary.NativeEndian.PutUint32(b[cmsgWord:], uint32(level))
	binary.NativeEndian.PutUint32(b[cmsgWord+4:], uint32(kind))
	return b[unix.SizeofCmsghdr : unix.SizeofCmsghdr+n]
}

// parse reads the control messages in b. Unknown ones and those too short for
// their kind are passed over.
func (c *Control) parse(b []byte) {
	for {
		m, rest, ok := nextCmsg(b)
		if !ok {
			return
		}
		c.take(m)
		b = rest
	}
}

func (c *Control) take(m cmsg) {
	switch m.level {
	case unix.SOL_UDP:
		if m.kind == unix.UDP_GRO {
			c.Segment = size(m.data)
		}
	case unix.SOL_SOCKET:
		if m.kind == unix.SO_RXQ_OVFL && len(m.data) >= 4 {
			c.Overflow = binary.NativeEndian.Uint32(m.data)
		}
	case unix.SOL_IP:
		switch m.kind {
		case unix.IP_ORIGDSTADDR:
			c.takeDest(m.data)
		case unix.IP_RECVFRAGSIZE:
			c.Fragment = size(m.data)
		case unix.IP_PKTINFO: // struct in_pktinfo: the index comes first
			c.Interface = size(m.data)
		}
	case unix.SOL_IPV6:
		switch m.kind {
		case unix.IPV6_ORIGDSTADDR:
			c.takeDest(m.data)
		case unix.IPV6_RECVFRAGSIZE:
			c.Fragment = size(m.data)
		case unix.IPV6_PKTINFO: // struct in6_pktinfo: the index follows the address
			c.Interface = size(m.data[min(16, len(m.data)):])
		}
	}
}

// takeDest keeps what is there when b is not an address. A socket for both
// families gets a v4 destination twice, plain and mapped; that is the same.
func (c *Control) takeDest(b []byte) {
	if c.Dest.parse(b) {
		c.HasDest = true
	}
}

// size reads an int that is not negative, 0 if there is none. UDP_GRO is an int
// here, although UDP_SEGMENT is an u16 (udp_cmsg_recv).
func size(b []byte) int {
	if len(b) < 4 {
		return 0
	}
	return max(0, int(int32(binary.NativeEndian.Uint32(b))))
}
