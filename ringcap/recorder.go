package ringcap

import (
	"context"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/tproxyd/tproxyd/ringcap/pcapng"
)

// Recorder keeps the last packets of a ring in the ring itself: blocks are held
// as history, and the oldest goes back to the kernel when it needs one. The
// filter's snap length decides how far back that reaches.
//
// Nothing looks at the blocks until they are dumped, so that the ring's Stats are
// what the blocks' headers say: Bytes with padding, and Taken with frames that
// hold nothing (Stats.Stale), of which there are none without GSO of SCTP.
type Recorder struct {
	ring  *Ring
	spare int

	mu      sync.Mutex
	history []*Block // the oldest first

	dump sync.Mutex // one dump at a time: a block has one walker
}

// Spare is how many blocks of a ring have to be with the kernel for it to take
// every packet. It looks without a lock whether the block a quarter of the ring
// ahead is free. If that is not, it refuses what comes in the moments between two
// blocks: single packets, without a freeze (__tpacket_v3_has_room of
// af_packet.c). The rest is for blocks that are on their way to a reader.
func Spare(blocks int) int { return min(blocks/4+1+max(blocks/16, 2), blocks-1) }

// NewRecorder makes a Recorder. spare is how many blocks the kernel always has
// to go on with, [Spare] if 0.
func NewRecorder(r *Ring, spare int) (*Recorder, error) {
	_, blocks := r.Geometry()
	if spare == 0 {
		spare = Spare(blocks)
	}
	if spare < 1 || spare >= blocks {
		return nil, fmt.Errorf("check recorder: %d spare blocks of %d", spare, blocks)
	}
	return &Recorder{ring: r, spare: spare}, nil
}

// Run records until ctx ends, and then gives up the history.
func (r *Recorder) Run(ctx context.Context) error {
	defer r.trim(0)
	_, blocks := r.ring.Geometry()
	for b, err := range r.ring.blocksBy(ctx, unseen) {
		if b == nil {
			return err
		}
		r.keep(b, blocks-r.spare)
	}
	return nil
}

// keep adds a block to the history, of which n remain.
func (r *Recorder) keep(b *Block, n int) {
	b.Retain()
	r.mu.Lock()
	r.history = append(r.history, b)
	r.mu.Unlock()
	r.trim(n)
}

// trim releases the oldest blocks until n are left.
func (r *Recorder) trim(n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	over := max(len(r.history)-n, 0)
	for _, b := range r.history[:over] {
		b.Release()
	}
	r.history = append(r.history[:0], r.history[over:]...)
}

// Window is a time that a dump covers, both ends included. Zero ends are open.
type Window struct{ From, To time.Time }

// holds says whether a time in nanoseconds is in the window.
func (w Window) holds(ns int64) bool {
	return (w.From.IsZero() || ns >= w.From.UnixNano()) && (w.To.IsZero() || ns <= w.To.UnixNano())
}

// Dump writes the packets of a window to out, as a run of packet blocks without
// a file's header, and returns how many there were. pick chooses and tags them,
// [FlowSet.Pick] for example; nil takes all.
//
// The last packets come out of the kernel up to the ring's retire time after they
// were captured. While a block is being written the kernel does not get it:
// out should not be slower than the traffic for longer than the spare blocks
// last.
func (r *Recorder) Dump(w Window, pick func(Packet) (pcapng.Tag, bool), out io.Writer) (int, error) {
	r.dump.Lock()
	defer r.dump.Unlock()
	e := pcapng.Encoder{Pick: func(p Packet) (pcapng.Tag, bool) {
		if !w.holds(p.Nanos()) {
			return pcapng.Tag{}, false
		}
		if pick == nil {
			return pcapng.Tag{}, true
		}
		return pick(p)
	}}
	n, last := 0, uint64(0)
	var buf []byte
	for {
		// Block by block, so that the others can go back meanwhile.
		b := r.after(last)
		if b == nil {
			return n, nil
		}
		last = b.Sequence() + 1
		buf = e.Copy(buf[:0], &b.Block)
		b.Release()
		n += e.Packets()
		if _, err := out.Write(buf); err != nil {
			return n, fmt.Errorf("dump recorder: %w", err)
		}
	}
}

// after retains the oldest block whose number is at least n.
func (r *Recorder) after(n uint64) *Block {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, b := range r.history {
		if b.Sequence() >= n {
			b.Retain()
			return b
		}
	}
	return nil
}
