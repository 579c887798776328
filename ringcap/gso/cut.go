package gso

import (
	"encoding/binary"
	"iter"

	"golang.org/x/sys/unix"
)

var be = binary.BigEndian

// Cutter cuts frames. It belongs to one goroutine; what it yields is good until
// the next piece.
type Cutter struct{ buf []byte }

// layout is where the headers of a frame are.
type layout struct {
	network, transport, payload int
	version                     int
	protocol                    uint8
}

// parse finds the headers of a TCP or UDP packet over IPv4 or IPv6, behind any
// number of VLAN tags.
func parse(b []byte) (l layout, ok bool) {
	at := 12
	var etherType uint16
	for {
		if len(b) < at+2 {
			return l, false
		}
		etherType = be.Uint16(b[at:])
		if etherType != unix.ETH_P_8021Q && etherType != unix.ETH_P_8021AD {
			break
		}
		at += 4
	}
	l.network = at + 2
	switch {
	case etherType == unix.ETH_P_IP && len(b) >= l.network+20:
		l.version, l.protocol = 4, b[l.network+9]
		l.transport = l.network + int(b[l.network]&15)*4
		if l.transport < l.network+20 {
			return l, false
		}
	case etherType == unix.ETH_P_IPV6 && len(b) >= l.network+40:
		l.version, l.protocol, l.transport = 6, b[l.network+6], l.network+40
	default:
		return l, false
	}
	switch {
	case l.protocol == unix.IPPROTO_TCP && len(b) >= l.transport+20:
		l.payload = l.transport + int(b[l.transport+12]>>4)*4
		return l, l.payload >= l.transport+20 && l.payload <= len(b)
	case l.protocol == unix.IPPROTO_UDP && len(b) >= l.transport+8:
		l.payload = l.transport + 8
		return l, true
	}
	return l, false
}

// Segments yields the pieces of a whole frame, each with size bytes of payload
// and the last with the rest. A frame that is not to be cut, because it is small,
// or not TCP or UDP right behind IP, is yielded as it is.
func (c *Cutter) Segments(frame []byte, size int) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		l, ok := parse(frame)
		if !ok || size <= 0 || len(frame)-l.payload <= size {
			yield(frame)
			return
		}
		payload := frame[l.payload:]
		for i := 0; len(payload) > 0; i++ {
			n := min(size, len(payload))
			c.buf = append(append(c.buf[:0], frame[:l.payload]...), payload[:n]...)
			payload = payload[n:]
			l.fix(c.buf, i, i*size, len(payload) == 0)
			if !yield(c.buf) {
				return
			}
		}
	}
}

const (
	tcpFIN, tcpPSH, tcpCWR = 0x01, 0x08, 0x80
)

// fix makes the headers of piece number i those of a packet of its own.
func (l layout) fix(b []byte, i, sent int, last bool) {
	ip, transport := b[l.network:], b[l.transport:]
	if l.version == 4 {
		be.PutUint16(ip[2:], uint16(len(ip)))
		be.PutUint16(ip[4:], be.Uint16(ip[4:])+uint16(i))
		be.PutUint16(ip[10:], 0)
		be.PutUint16(ip[10:], ^fold(sum(0, ip[:l.transport-l.network])))
	} else {
		be.PutUint16(ip[4:], uint16(len(ip)-40))
	}
	at := 6 // of the checksum
	if l.protocol == unix.IPPROTO_TCP {
		at = 16
		be.PutUint32(transport[4:], be.Uint32(transport[4:])+uint32(sent))
		if !last {
			transport[13] &^= tcpFIN | tcpPSH
		}
		if i > 0 {
			transport[13] &^= tcpCWR
		}
	} else {
		be.PutUint16(transport[4:], uint16(len(transport)))
	}
	be.PutUint16(transport[at:], 0)
	check := ^fold(sum(l.pseudo(ip, len(transport)), transport))
	if check == 0 && l.protocol == unix.IPPROTO_UDP {
		check = 0xffff
	}
	be.PutUint16(transport[at:], check)
}

// pseudo is the sum over the pseudo header.
func (l layout) pseudo(ip []byte, n int) uint64 {
	addresses := ip[8:40]
	if l.version == 4 {
		addresses = ip[12:20]
	}
	return sum(uint64(l.protocol)+uint64(n), addresses)
}

// sum adds up 16-bit words, RFC 1071.
func sum(s uint64, b []byte) uint64 {
	for ; len(b) >= 4; b = b[4:] {
		s += uint64(be.Uint32(b))
	}
	if len(b) >= 2 {
		s += uint64(be.Uint16(b))
		b = b[2:]
	}
	if len(b) == 1 {
		s += uint64(b[0]) << 8
	}
	return s
}

func fold(s uint64) uint16 {
	for s > 0xffff {
		s = s>>16 + s&0xffff
	}
	return uint16(s)
}
