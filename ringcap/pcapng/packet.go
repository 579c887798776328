package pcapng

import (
	"encoding/binary"

	"github.com/tproxyd/tproxyd/internal/tpacket"
)

// Values of epb_flags.
const (
	FlagInbound  = 1
	FlagOutbound = 2

	flagUnicast, flagMulticast, flagBroadcast, flagOther = 1 << 2, 2 << 2, 3 << 2, 4 << 2
)

// GSO is what the custom option tells of a super-frame. As an option it is
// eight bytes behind the PEN: size, header length and checksum start as 16 bits
// in the section's byte order, then the kind (of virtio_net.h) and the flags.
// In a file that was turned in place zero bytes follow, and the option is also
// there, all zero, for packets that are none.
type GSO struct {
	Size      uint16 // payload bytes of a segment
	HeaderLen uint16
	CsumStart uint16
	Kind      uint8
	Flags     uint8
}

const gsoLen = 8

func (g GSO) put(b []byte) {
	ne.PutUint16(b, g.Size)
	ne.PutUint16(b[2:], g.HeaderLen)
	ne.PutUint16(b[4:], g.CsumStart)
	b[6], b[7] = g.Kind, g.Flags
}

// Packet is one packet with everything that is written about it.
type Packet struct {
	Interface uint32
	Nanos     int64 // since 1970
	Data      []byte
	Len       int          // before it was cut; at least len(Data) is written
	VLAN      tpacket.VLAN // put back into Data unless TPID is 0
	Flags     uint32
	ID        uint64 // of the flow, 0 if there is none
	GSO       GSO
	Comment   string
}

// Tag is what a capture knows of a packet that the packet does not say.
type Tag struct {
	Interface uint32
	ID        uint64
	Snap      int // 0 is all that was captured
	// Comment is written by Copy. The other encodings have no room for it.
	Comment string
}

// FromFrame describes a frame of a ring. Data is lent as the frame is.
func FromFrame(f tpacket.Frame, tag Tag) Packet {
	p := Packet{
		Interface: tag.Interface, ID: tag.ID, Nanos: f.Nanos(), Data: f.Data(), Len: f.Len(), Flags: flags(f.Type()),
		Comment: tag.Comment,
	}
	if tag.Snap > 0 && tag.Snap < len(p.Data) {
		p.Data = p.Data[:tag.Snap]
	}
	if len(p.Data) >= tagAt {
		if vlan, ok := f.VLAN(); ok {
			p.VLAN = vlan
			p.Len += tagLen
		}
	}
	if v, ok := f.VNet(); ok && v.GSOSize != 0 {
		p.GSO = GSO{Size: v.GSOSize, HeaderLen: v.HeaderLen, CsumStart: v.CsumStart, Kind: v.GSOType, Flags: v.Flags}
	}
	return p
}

const (
	headerLen = 28 // of an Enhanced Packet Block
	tagAt     = 12 // a VLAN tag stands behind both addresses
	tagLen    = 4
)

// captured is how many bytes of the packet are in the file.
func (p *Packet) captured() int {
	if p.VLAN.TPID != 0 {
		return len(p.Data) + tagLen
	}
	return len(p.Data)
}

// putHeader writes everything of the block before the packet's bytes, but for
// the block's length.
func (p *Packet) putHeader(b []byte) {
	b = b[:headerLen]
	ne.PutUint32(b, typePacket)
	ne.PutUint32(b[8:], p.Interface)
	ne.PutUint32(b[12:], uint32(uint64(p.Nanos)>>32))
	ne.PutUint32(b[16:], uint32(p.Nanos))
	n := p.captured()
	ne.PutUint32(b[20:], uint32(n))
	ne.PutUint32(b[24:], uint32(max(p.Len, n)))
}

// optionsLen is the length of the options without a comment.
func (p *Packet) optionsLen() int {
	n := 8 + 4 // flags, end
	if p.ID != 0 {
		n += 12
	}
	if p.GSO.Size != 0 {
		n += 8 + gsoLen
	}
	return n
}

// appendOptions writes the options of copies: none that says nothing.
func (p *Packet) appendOptions(dst []byte) []byte {
	dst = ne.AppendUint32(option(dst, optFlags, 4), p.Flags)
	if p.ID != 0 {
		dst = number(dst, optPacketID, p.ID)
	}
	if p.GSO.Size != 0 {
		dst = ne.AppendUint32(option(dst, optCustom, 4+gsoLen), PEN)
		dst = append(dst, make([]byte, gsoLen)...)
		p.GSO.put(dst[len(dst)-gsoLen:])
	}
	return end(text(dst, optComment, p.Comment))
}

// AppendPacket appends an Enhanced Packet Block. A packet without Data and
// with a Comment is an event.
func AppendPacket(dst []byte, p *Packet) []byte {
	start := len(dst)
	var header [headerLen]byte
	p.putHeader(header[:])
	dst = append(dst, header[:]...)
	if p.VLAN.TPID != 0 {
		dst = append(dst, p.Data[:tagAt]...)
		dst = binary.BigEndian.AppendUint16(dst, p.VLAN.TPID)
		dst = binary.BigEndian.AppendUint16(dst, p.VLAN.TCI)
		dst = append(dst, p.Data[tagAt:]...)
	} else {
		dst = append(dst, p.Data...)
	}
	dst = pad(dst, p.captured())
	return finish(p.appendOptions(dst), start)
}
