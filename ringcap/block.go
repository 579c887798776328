package ringcap

import (
	"iter"
	"sync/atomic"

	"github.com/tproxyd/tproxyd/internal/tpacket"
)

// Packet is one packet in a block of the ring, lent until the block is
// released.
type Packet = tpacket.Frame

// Block is one block of the ring, lent to the loop over [Ring.Blocks]. It goes
// back to the kernel when the loop's body ends, unless it was retained; then
// when the last who retained it releases it.
type Block struct {
	tpacket.Block

	ring *Ring
	mem  []byte
	refs atomic.Int32
	// held is true from take until the kernel has the block again. It is not
	// the same as refs: between the last release and the store to the status
	// word the block would look like a new one.
	held atomic.Bool
}

// Packets walks over the packets. It allocates nothing.
func (b *Block) Packets() iter.Seq[Packet] { return b.Frames() }

// Ring is where the block is from.
func (b *Block) Ring() *Ring { return b.ring }

// Retain keeps the block, and the ring's memory, beyond the loop's body. Each
// block retained is one less for the kernel to write to.
func (b *Block) Retain() { b.refs.Add(1) }

// Release gives the block up.
func (b *Block) Release() {
	switch n := b.refs.Add(-1); {
	case n == 0:
		mem := b.ring.mem
		b.Block.Release()
		b.held.Store(false)
		mem.drop()
	case n < 0:
		panic("ringcap: block released twice")
	}
}

// take makes the block the reader's if the kernel has handed it over.
func (b *Block) take() (bool, error) {
	// Still retained from the last time around: the kernel cannot have it.
	if b.held.Load() {
		return false, nil
	}
	ready, err := b.Load(b.mem, b.ring.VNet())
	if ready {
		b.refs.Store(1)
		b.held.Store(true)
		b.ring.mem.take()
	}
	return ready, err
}

// walk looks at all frames, for the numbers and the error. The headers are
// still the kernel's own here.
func (b *Block) walk() error {
	for range b.Frames() {
	}
	return b.Err()
}

// count adds the block to the ring's numbers.
func (b *Block) count(w tpacket.Walk) {
	b.ring.taken.Add(uint64(w.Frames))
	b.ring.bytes.Add(uint64(w.Bytes))
	b.ring.blocky.Add(1)
	b.ring.stale.Add(uint64(b.Skipped()))
}
