package pcapng

import (
	"golang.org/x/sys/unix"

	"github.com/tproxyd/tproxyd/internal/tpacket"
)

// The options of a packet that has no more to tell than its direction, and its
// flow if there is one.
const (
	flagsLen  = 8
	idLen     = 12
	trailLen  = 8 // the end of the options, and the block's length
	mostUsual = headerLen + 3 + flagsLen + idLen + trailLen
)

// putUsual writes a plain frame (see [tpacket.Frame.Plain]) as what Packet writes
// about it, and returns the length. It is for the many: nothing but words in
// their places. The frame may be in the same memory as b, at or behind it.
func putUsual(b []byte, f tpacket.Frame, tag *Tag) int {
	data := f.Data()
	if tag.Snap > 0 && tag.Snap < len(data) {
		data = data[:tag.Snap]
	}
	nanos, length, flags := uint64(f.Nanos()), max(f.Len(), len(data)), flags(f.Type())
	n := copy(b[headerLen:], data) // from here on nothing of the frame is there
	at := headerLen + n
	for ; at&3 != 0; at++ {
		b[at] = 0
	}
	total := at + flagsLen + trailLen
	if tag.ID != 0 {
		total += idLen
	}
	h := b[:headerLen]
	ne.PutUint32(h, typePacket)
	ne.PutUint32(h[4:], uint32(total))
	ne.PutUint32(h[8:], tag.Interface)
	ne.PutUint32(h[12:], uint32(nanos>>32))
	ne.PutUint32(h[16:], uint32(nanos))
	ne.PutUint32(h[20:], uint32(n))
	ne.PutUint32(h[24:], uint32(length))
	o := b[at:total]
	putOption(o, optFlags, 4)
	ne.PutUint32(o[4:], flags)
	if tag.ID != 0 {
		putOption(o[8:], optPacketID, 8)
		ne.PutUint64(o[12:], tag.ID)
		o = o[idLen:]
	}
	ne.PutUint32(o[8:], optEnd)
	ne.PutUint32(o[12:], uint32(total))
	return total
}

func putOption(b []byte, code, n uint16) {
	ne.PutUint16(b, code)
	ne.PutUint16(b[2:], n)
}

// pktFlags are epb_flags by packet type.
var pktFlags = [8]uint32{
	unix.PACKET_HOST:      FlagInbound | flagUnicast,
	unix.PACKET_BROADCAST: FlagInbound | flagBroadcast,
	unix.PACKET_MULTICAST: FlagInbound | flagMulticast,
	unix.PACKET_OTHERHOST: FlagInbound | flagOther,
	unix.PACKET_OUTGOING:  FlagOutbound,
}

func flags(pkttype uint8) uint32 {
	if int(pkttype) >= len(pktFlags) {
		return 0
	}
	return pktFlags[pkttype]
}
