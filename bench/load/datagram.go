package load

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Datagrams carry who they are, in network byte order:
//
//	offset 0   magic
//	       4   epoch: which of the runs it belongs to
//	       8   flow
//	      12   source port that it was sent from
//	      14   kind
//	      16   number within the flow, from 0
//	      24   the pattern at the number, up to the end
const (
	datagramMagic  = 0x74706477
	datagramHeader = 24

	// MinDatagram is the size of the smallest datagram.
	MinDatagram = datagramHeader
	// MaxDatagram is what IPv4 can carry.
	MaxDatagram = 65507

	kindData  = 0 // the sender wants no answer
	kindQuery = 1
	kindReply = 2

	// maxFlows and maxNumber bound what the receiver keeps: a bit for each.
	maxFlows  = 1 << 16
	maxNumber = 1 << 30
)

// datagram is what the header says.
type datagram struct {
	epoch uint32
	flow  uint32
	port  uint16
	kind  uint16
	seq   uint64
}

var errForeignDatagram = errors.New("datagram is not one of ours")

// put fills b, which has the size of the datagram.
func (d datagram) put(b []byte, p pattern) {
	binary.BigEndian.PutUint32(b, datagramMagic)
	binary.BigEndian.PutUint32(b[4:], d.epoch)
	binary.BigEndian.PutUint32(b[8:], d.flow)
	binary.BigEndian.PutUint16(b[12:], d.port)
	binary.BigEndian.PutUint16(b[14:], d.kind)
	binary.BigEndian.PutUint64(b[16:], d.seq)
	copy(b[datagramHeader:], p.at(d.seq))
}

// parseDatagram reads the header of b and compares the rest with the pattern.
func parseDatagram(b []byte, size int, p pattern) (d datagram, err error) {
	if len(b) != size {
		return d, fmt.Errorf("datagram has %d bytes, want %d: its boundaries were changed", len(b), size)
	}
	if len(b) < datagramHeader || binary.BigEndian.Uint32(b) != datagramMagic {
		return d, errForeignDatagram
	}
	d = datagram{
		epoch: binary.BigEndian.Uint32(b[4:]),
		flow:  binary.BigEndian.Uint32(b[8:]),
		port:  binary.BigEndian.Uint16(b[12:]),
		kind:  binary.BigEndian.Uint16(b[14:]),
		seq:   binary.BigEndian.Uint64(b[16:]),
	}
	if d.flow >= maxFlows || d.seq >= maxNumber || d.kind > kindReply {
		return d, errForeignDatagram
	}
	if !p.matches(d.seq, b[datagramHeader:]) {
		return d, fmt.Errorf("content of datagram %d of flow %d differs", d.seq, d.flow)
	}
	return d, nil
}
