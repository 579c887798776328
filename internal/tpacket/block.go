package tpacket

import (
	"encoding/binary"
	"errors"
	"fmt"
	"iter"

	"golang.org/x/sys/unix"
)

// Offsets in tpacket_block_desc.
const (
	offVersion = 0
	offStatus  = 8
	offCount   = 12
	offFirst   = 16
	offLen     = 20
	offSeq     = 24
	offLast    = 40 // of ts_last_pkt
)

// What can be wrong with a block. A kernel that writes such a block is one
// that this package does not know.
var (
	ErrVersion = errors.New("not a block of TPACKET_V3")
	ErrBlock   = errors.New("block header out of range")
	ErrFrame   = errors.New("frame out of range")
)

var ne = binary.NativeEndian

// Block is one block of a ring while user space owns it. It belongs to one
// goroutine at a time.
type Block struct {
	mem     []byte
	seq     uint64
	first   uint32
	count   uint32
	vnet    bool
	losing  bool
	skipped uint32
	err     error

	walked Walk
}

// Walk is what a walk over the frames came by.
type Walk struct {
	Frames int
	Bytes  int // of packets
}

// Ready says whether user space owns the block in mem.
func Ready(mem []byte) bool { return loadWord(mem, offStatus)&unix.TP_STATUS_USER != 0 }

// Load reads the header of the block in mem and returns true if user space
// owns it. vnet says whether the ring was made with PACKET_VNET_HDR. A header
// that makes no sense is an error; the block is then owned nevertheless and has
// to be released.
func (b *Block) Load(mem []byte, vnet bool) (bool, error) {
	status := loadWord(mem, offStatus)
	if status&unix.TP_STATUS_USER == 0 {
		return false, nil
	}
	*b = Block{
		mem: mem, vnet: vnet,
		count: ne.Uint32(mem[offCount:]), first: ne.Uint32(mem[offFirst:]), seq: ne.Uint64(mem[offSeq:]),
		losing: status&unix.TP_STATUS_LOSING != 0,
	}
	if v := ne.Uint32(mem[offVersion:]); v != unix.TPACKET_V3 {
		b.count = 0
		return true, fmt.Errorf("load block: %w: version %d", ErrVersion, v)
	}
	if b.count > 0 && (b.first < BlockHeaderLen || b.first%frameAlign != 0 || uint64(b.first) >= uint64(len(mem))) {
		b.count = 0
		return true, fmt.Errorf("load block: %w: first frame at %d", ErrBlock, ne.Uint32(mem[offFirst:]))
	}
	return true, nil
}

// Release gives the block back to the kernel. No frame of it may be used
// afterwards.
func (b *Block) Release() {
	mem := b.mem
	b.mem, b.count = nil, 0
	storeWord(mem, offStatus, unix.TP_STATUS_KERNEL)
}

// Sequence is the kernel's running number of the block.
func (b *Block) Sequence() uint64 { return b.seq }

// Count is how many frames the kernel says there are. Frames may yield fewer.
func (b *Block) Count() int { return int(b.count) }

// Losing says whether packets had been dropped, for want of a free block, that
// the statistics had not been asked for when the block was closed.
func (b *Block) Losing() bool { return b.losing }

// VNet says whether frames carry a virtio header.
func (b *Block) VNet() bool { return b.vnet }

// Skipped is how many frames without TP_STATUS_USER the last walk met.
func (b *Block) Skipped() int { return int(b.skipped) }

// Walked is what the last walk, if it was not left early, came by.
func (b *Block) Walked() Walk { return b.walked }

// Estimate is what a walk would come by, as far as the header tells: stale frames
// are counted, and up to seven bytes of padding for each frame but the last.
func (b *Block) Estimate() Walk {
	if b.count == 0 {
		return Walk{}
	}
	mac := uint64(minMac)
	if at := uint64(b.first); at+FrameHeaderLen <= uint64(len(b.mem)) {
		mac = uint64(ne.Uint16(b.mem[at+frMac:]))
	}
	used := min(uint64(ne.Uint32(b.mem[offLen:])), uint64(len(b.mem)))
	heads := uint64(b.first) + uint64(b.count)*mac
	return Walk{Frames: int(b.count), Bytes: int(max(used, heads) - heads)}
}

// Err is what ended the last walk over the frames, nil if it went to the end.
func (b *Block) Err() error { return b.err }

// Bytes is the block's memory, lent until Release. Writing to it is allowed,
// other than to the status word.
func (b *Block) Bytes() []byte { return b.mem }

// Nanos are the times of the first and the last packet by the block's header,
// in nanoseconds since 1970. A block that the timer closed has its own time as
// the last.
func (b *Block) Nanos() (first, last int64) {
	h := b.mem[:BlockHeaderLen]
	return nanos(h[offLast-8:]), nanos(h[offLast:])
}

func nanos(ts []byte) int64 { return int64(ne.Uint32(ts))*1e9 + int64(ne.Uint32(ts[4:])) }

// Frames walks over the frames in the order in which they came. The next
// frame is found before a frame is yielded, so the loop's body may write over
// the header of its frame.
func (b *Block) Frames() iter.Seq[Frame] {
	// A literal, which is inlined, and not b.walk: a method value is allocated.
	return func(yield func(Frame) bool) { b.walk(yield) }
}

func (b *Block) walk(yield func(Frame) bool) {
	b.err, b.skipped = nil, 0
	mem := b.mem
	frames, bytes := 0, 0
	least := uint32(minMac)
	if b.vnet {
		least += VNetHeaderLen
	}
	at := uint64(b.first)
	for left := b.count; left > 0; left-- {
		if at+FrameHeaderLen > uint64(len(mem)) {
			b.err = ErrFrame
			return
		}
		head := mem[at : at+FrameHeaderLen]
		next := ne.Uint32(head[frNext:])
		if ne.Uint32(head[frStatus:])&unix.TP_STATUS_USER == 0 {
			b.skipped++
		} else {
			mac := ne.Uint16(head[frMac:])
			end := uint64(mac) + uint64(ne.Uint32(head[frSnaplen:]))
			if uint32(mac) < least || at+end > uint64(len(mem)) {
				b.err = ErrFrame
				return
			}
			if next != 0 && uint64(next) < end {
				b.err = ErrFrame
				return
			}
			frames++
			bytes += int(end) - int(mac)
			if !yield(Frame{raw: mem[at : at+end : at+end], at: uint32(at), mac: mac, vnet: b.vnet}) {
				return
			}
		}
		if left == 1 {
			b.walked = Walk{frames, bytes}
			return
		}
		if next < FrameHeaderLen || next%frameAlign != 0 {
			b.err = ErrFrame
			return
		}
		at += uint64(next)
	}
}
