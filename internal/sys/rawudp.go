package sys

import (
	"encoding/binary"
	"math/rand/v2"

	"golang.org/x/sys/unix"
)

// RawUDP sends datagrams from any address and port, also one that another
// socket of this host owns. It receives nothing. One thread uses it.
type RawUDP struct {
	socket *packetSocket
	mark   uint32
	header [ip6Header + fragHeader + udpHeader]byte
}

// rawWhole is a packet that is sent without asking for the path's MTU: the
// least that IPv6 has, and almost always less than IPv4's.
const rawWhole = 1280

// OpenRawUDP opens one for the family AF_INET or AF_INET6. It needs
// CAP_NET_RAW. A mark of 0 is none.
func OpenRawUDP(family int, mark uint32) (*RawUDP, error) {
	p, err := openPacketSocket(family, mark)
	if err != nil {
		return nil, err
	}
	return &RawUDP{socket: p, mark: mark}, nil
}

// Close closes the socket.
func (r *RawUDP) Close() { Close(r.socket.fd) }

// Send sends one datagram from the address from to the address to, both of the
// socket's family, without waiting. It leaves in fragments if it is larger
// than the path allows, as far as the host knows it.
func (r *RawUDP) Send(from, to *SockAddr, data []byte) Errno {
	size := udpHeader + len(data)
	if size > r.largest() {
		return unix.EMSGSIZE
	}
	if int(from.raw.Family) != r.socket.family || from.raw.Family != to.raw.Family {
		return unix.EAFNOSUPPORT
	}
	if r.ipHeader()+size <= rawWhole {
		if e := r.whole(from, to, data); e != unix.EMSGSIZE {
			return e
		}
	}
	mtu, _, e := pathMTU(to.AddrPort(), from.AddrPort().Addr(), r.mark)
	if e != 0 {
		return e
	}
	if r.ipHeader()+size <= mtu {
		return r.whole(from, to, data)
	}
	return r.fragments(from, to, data, mtu)
}

func (r *RawUDP) v6() bool { return r.socket.family == unix.AF_INET6 }

func (r *RawUDP) ipHeader() int {
	if r.v6() {
		return ip6Header
	}
	return ip4Header
}

// largest is the size of the largest UDP header and payload: the length in an
// IPv6 header does not count the header itself.
func (r *RawUDP) largest() int {
	if r.v6() {
		return 0xffff
	}
	return 0xffff - ip4Header
}

// whole sends the datagram as one packet. DF is not set: the owner of the
// source address would get the routers' complaints.
func (r *RawUDP) whole(from, to *SockAddr, data []byte) Errno {
	n := r.ipHeader()
	if r.v6() {
		putIP6(r.header[:], from, to, unix.IPPROTO_UDP, udpHeader+len(data))
	} else {
		putIP4(r.header[:], from, to, unix.IPPROTO_UDP, identification(), 0, udpHeader+len(data))
	}
	putUDP(r.header[n:], from, to, data, len(data))
	return r.socket.send(from, to, r.header[:n+udpHeader], data)
}

// fragments sends the datagram in packets of at most mtu bytes. What was sent
// before an error is lost on the receiver, who gives up the rest.
func (r *RawUDP) fragments(from, to *SockAddr, data []byte, mtu int) Errno {
	n := r.ipHeader()
	if r.v6() {
		n += fragHeader
	}
	// The UDP header goes with the first, behind its IP header.
	var udp [udpHeader]byte
	putUDP(udp[:], from, to, data, len(data))
	room := (mtu - n) &^ 7 // offsets are in units of 8 bytes
	if room <= udpHeader {
		return unix.EMSGSIZE
	}
	id := rand.Uint32()
	offset := 0
	for offset == 0 || len(data) > 0 {
		header := n
		if offset == 0 {
			header += copy(r.header[n:], udp[:])
		}
		piece := data[:min(len(data), n+room-header)]
		data = data[len(piece):]
		length := header - n + len(piece)
		r.fragment(from, to, id, offset, length, len(data) > 0)
		if e := r.socket.send(from, to, r.header[:header], piece); e != 0 {
			return e
		}
		offset += length
	}
	return 0
}

// fragment writes the headers of a fragment of length bytes.
func (r *RawUDP) fragment(from, to *SockAddr, id uint32, offset, length int, more bool) {
	if !r.v6() {
		flags := uint16(offset / 8)
		if more {
			flags |= moreFragments
		}
		putIP4(r.header[:], from, to, unix.IPPROTO_UDP, max(1, uint16(id)), flags, length)
		return
	}
	putIP6(r.header[:], from, to, unix.IPPROTO_FRAGMENT, fragHeader+length)
	b := r.header[ip6Header:]
	flags := uint16(offset) // in units of 8 bytes above 3 bits of flags
	if more {
		flags |= 1
	}
	b[0], b[1] = unix.IPPROTO_UDP, 0
	binary.BigEndian.PutUint16(b[2:], flags)
	binary.BigEndian.PutUint32(b[4:], id)
}

// identification of a packet that a router may fragment: never 0, for which
// the kernel would put one.
func identification() uint16 { return max(1, uint16(rand.Uint32())) }
