package pcapng

import (
	"encoding/binary"
	"slices"

	"github.com/tproxyd/tproxyd/internal/tpacket"
	"github.com/tproxyd/tproxyd/ringcap/gso"
)

// Encoder turns blocks of a ring into runs of packet blocks. The zero value
// takes every packet as one of interface 0. It belongs to one goroutine.
type Encoder struct {
	// Pick says what a packet is tagged with, and whether it is taken. It may
	// not keep the frame. Nil takes everything with the Tag Default.
	Pick    func(tpacket.Frame) (Tag, bool)
	Default Tag

	// Wire makes Copy cut super-frames into what the wire would carry. The
	// other encodings have no room for it.
	Wire bool

	cutter  gso.Cutter
	packets int
	tail    []byte
	run     []byte // of CopyTo
}

// Packets is how many packets the last call encoded.
func (e *Encoder) Packets() int { return e.packets }

func (e *Encoder) tag(f tpacket.Frame) (Tag, bool) {
	if e.Pick == nil {
		return e.Default, true
	}
	return e.Pick(f)
}

// Copy appends the packets of a block to dst and leaves the block as it is.
func (e *Encoder) Copy(dst []byte, b *tpacket.Block) []byte {
	e.packets = 0
	for f := range b.Frames() {
		dst = e.copyFrame(dst, f)
	}
	return dst
}

// stretch is how much CopyTo writes at a time: what the cache holds beside the
// packets.
const stretch = 64 << 10

// CopyTo is Copy for blocks that are only written, in runs of about 64 KiB that
// stay in the processor's cache, where a whole block would not. It ends with the
// first error of write, to which a run is lent.
func (e *Encoder) CopyTo(b *tpacket.Block, write func(run []byte, packets int) error) error {
	e.packets = 0
	e.run = e.run[:0]
	written := 0
	for f := range b.Frames() {
		e.run = e.copyFrame(e.run, f)
		if len(e.run) < stretch {
			continue
		}
		if err := write(e.run, e.packets-written); err != nil {
			return err
		}
		written, e.run = e.packets, e.run[:0]
	}
	if len(e.run) == 0 {
		return nil
	}
	return write(e.run, e.packets-written)
}

func (e *Encoder) copyFrame(dst []byte, f tpacket.Frame) []byte {
	if e.Wire {
		return e.copyWire(dst, f)
	}
	tag, ok := e.tag(f)
	if !ok {
		return dst
	}
	e.packets++
	if tag.Comment == "" && f.Plain() {
		dst = slices.Grow(dst, len(f.Data())+mostUsual)
		return dst[:len(dst)+putUsual(dst[len(dst):cap(dst)], f, &tag)]
	}
	p := FromFrame(f, tag)
	return AppendPacket(dst, &p)
}

// copyWire appends a frame as the packets that it is on the wire. The snap
// length is that of each. What the filter has cut already cannot be told apart.
func (e *Encoder) copyWire(dst []byte, f tpacket.Frame) []byte {
	tag, ok := e.tag(f)
	if !ok {
		return dst
	}
	whole := Tag{Interface: tag.Interface, ID: tag.ID, Comment: tag.Comment}
	p := FromFrame(f, whole)
	if p.GSO.Size == 0 || f.Len() != len(p.Data) {
		e.packets++
		p = FromFrame(f, tag)
		return AppendPacket(dst, &p)
	}
	size, vlan := int(p.GSO.Size), p.VLAN
	p.GSO = GSO{}
	for piece := range e.cutter.Segments(p.Data, size) {
		p.Data, p.Len, p.VLAN = piece, len(piece), vlan
		if vlan.TPID != 0 {
			p.Len += tagLen
		}
		if tag.Snap > 0 {
			p.Data = piece[:min(tag.Snap, len(piece))]
		}
		if len(p.Data) < tagAt {
			p.VLAN = tpacket.VLAN{}
		}
		dst = AppendPacket(dst, &p)
		e.packets++
		p.Comment = ""
	}
	return dst
}

// Compact moves the packets of a block together and returns the part of the
// block that now is a run of packet blocks. It is lent as the block is, which
// cannot be walked again.
//
// What is written about a packet, 76 bytes and padding at most, is less than
// what the kernel put before it, 82 and padding at least: the end of the run
// never gets ahead of the packets.
func (e *Encoder) Compact(b *tpacket.Block) []byte {
	e.packets = 0
	mem := b.Bytes()
	at := tpacket.BlockHeaderLen
	for f := range b.Frames() {
		tag, ok := e.tag(f)
		if !ok {
			continue
		}
		e.packets++
		if f.Plain() {
			at += putUsual(mem[at:], f, &tag)
			continue
		}
		p := FromFrame(f, tag)
		at += p.moveTo(mem[at:])
	}
	return mem[tpacket.BlockHeaderLen:at]
}

// moveTo writes the packet to memory that ends at or before its own header
// starts, with room for at least 56 bytes between.
func (p *Packet) moveTo(b []byte) int {
	p.Comment = ""
	n := p.captured()
	if p.VLAN.TPID != 0 {
		copy(b[headerLen:], p.Data[:tagAt])
		putTag(b[headerLen+tagAt:], p.VLAN)
		copy(b[headerLen+tagAt+tagLen:], p.Data[tagAt:])
	} else {
		copy(b[headerLen:], p.Data)
	}
	p.putHeader(b)
	at := headerLen + n
	for ; at&3 != 0; at++ {
		b[at] = 0
	}
	total := at + p.optionsLen() + 4
	p.appendOptions(b[:at:total])
	ne.PutUint32(b[4:], uint32(total))
	ne.PutUint32(b[total-4:], uint32(total))
	return total
}

func putTag(b []byte, v tpacket.VLAN) {
	binary.BigEndian.PutUint16(b, v.TPID)
	binary.BigEndian.PutUint16(b[2:], v.TCI)
}

// pending is a packet in place whose options are not written: they go over the
// header of the next frame.
type pending struct {
	start, dataEnd int // of its block, and of its bytes with padding
	flags          uint32
	id             uint64
	gso            GSO
}

// leastOptions is the room that a packet in place needs behind its bytes:
// flags, packet id, a custom option with the GSO, end, and the block's length.
const leastOptions = 8 + 12 + 8 + gsoLen + 4 + 4

// InPlace turns the block itself into a run of packet blocks without moving a
// packet. The run is lent as the block is, which cannot be walked again. tail
// is to be written after it: the last packet, if there was no room behind it.
// It is good until the next call.
//
// The ring has to keep packets at multiples of four (see [tpacket.Mac]); a
// block of another is compacted.
func (e *Encoder) InPlace(b *tpacket.Block) (run, tail []byte) {
	e.packets = 0
	mem := b.Bytes()
	first, open := 0, pending{start: -1}
	for f := range b.Frames() {
		_, mac := f.Raw()
		if mac&3 != 0 {
			return e.Compact(b), nil
		}
		tag, ok := e.tag(f)
		if !ok {
			continue
		}
		e.packets++
		p := FromFrame(f, tag)
		frame := f.Offset()
		start := frame + mac - headerLen
		dataEnd := frame + mac + (len(p.Data)+3)&^3
		if p.VLAN.TPID != 0 {
			start -= tagLen
		}
		if open.start < 0 {
			first = start
		}
		if dataEnd+leastOptions > len(mem) {
			// Only the last frame of a block reaches so far.
			tail = AppendPacket(e.tail[:0], &p)
			e.tail = tail
			if open.start < 0 {
				return nil, tail
			}
			return mem[first:open.close(mem, frame+mac-headerLen-tagLen)], tail
		}
		if open.start >= 0 {
			open.close(mem, start)
		}
		if p.VLAN.TPID != 0 {
			copy(mem[start+headerLen:], p.Data[:tagAt])
			putTag(mem[start+headerLen+tagAt:], p.VLAN)
		}
		p.putHeader(mem[start:])
		clear(mem[start+headerLen+p.captured() : dataEnd])
		open = pending{start: start, dataEnd: dataEnd, flags: p.Flags, id: p.ID, gso: p.GSO}
	}
	if open.start < 0 {
		return nil, nil
	}
	return mem[first:open.close(mem, open.dataEnd+leastOptions)], nil
}

// close writes the options and the length of a packet whose block ends at end,
// and returns end. Every byte between is written: what was there is of another
// packet.
func (o *pending) close(mem []byte, end int) int {
	b := mem[o.dataEnd:end]
	clear(b)
	n := uint32(end - o.start)
	ne.PutUint32(mem[o.start+4:], n)
	ne.PutUint32(b[len(b)-4:], n)
	ne.PutUint16(b, optFlags)
	ne.PutUint16(b[2:], 4)
	ne.PutUint32(b[4:], o.flags)
	b = b[8:]
	if o.id != 0 {
		ne.PutUint16(b, optPacketID)
		ne.PutUint16(b[2:], 8)
		ne.PutUint64(b[4:], o.id)
		b = b[12:]
	}
	rest := len(b) - 8 // less the end and the length
	for at := 0; rest > 0; {
		size := min(rest-4, maxCustom)
		if left := rest - 4 - size; left > 0 && left < 8 {
			size -= 8 // the next one needs a PEN of its own
		}
		ne.PutUint16(b[at:], optCustom)
		ne.PutUint16(b[at+2:], uint16(size))
		ne.PutUint32(b[at+4:], PEN)
		if at == 0 {
			o.gso.put(b[8:])
		}
		at += 4 + size
		rest -= 4 + size
	}
	return end
}

// maxCustom is the longest custom option, which is a multiple of four.
const maxCustom = 0xfffc
