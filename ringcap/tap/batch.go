package tap

import (
	"sync"
	"sync/atomic"

	"github.com/tproxyd/tproxyd/internal/packet"
	"github.com/tproxyd/tproxyd/internal/tpacket"
	"github.com/tproxyd/tproxyd/ringcap"
)

// batch is a block whose packets' flows have been looked up, on its way to the
// sinks. It holds the block until the last of them has released it.
type batch struct {
	block  *ringcap.Block
	from   *source
	legs   []*leg // of each frame in turn; nil is a stray
	known  int    // how many are not nil
	newest int64  // time of a packet
	refs   atomic.Int32

	// The ends of the last packet and their newest leg, as the next one mostly
	// has the same.
	key  packet.Ends
	head *leg
}

// repeated is the leg of a packet that another ring has had already.
var repeated = &leg{}

var batches = sync.Pool{New: func() any { return new(batch) }}

func newBatch(b *ringcap.Block, from *source) *batch {
	x := batches.Get().(*batch)
	x.block, x.from, x.known, x.newest = b, from, 0, 0
	x.refs.Store(1)
	return x
}

// view is for one walker; several may walk at a time.
func (b *batch) view() tpacket.Block { return b.block.Block }

func (b *batch) retain() { b.refs.Add(1) }

func (b *batch) release() {
	if b.refs.Add(-1) > 0 {
		return
	}
	b.block.Release()
	clear(b.legs)
	b.block, b.from, b.head, b.legs = nil, nil, nil, b.legs[:0]
	batches.Put(b)
}

// classify looks up the flows of the frames from number start on. It ends
// before one whose flow may yet become known, unless this is the last time of
// asking, and returns how many have been looked up in all.
func (b *batch) classify(r *registry, start int, last bool) int {
	r.mu.RLock()
	defer r.mu.RUnlock()
	var s segment
	b.head = nil
	view, i := b.view(), 0
	for f := range view.Frames() {
		if i++; i <= start {
			continue
		}
		l, done := b.lookup(r, &s, f, last)
		if !done {
			return i - 1
		}
		b.legs = append(b.legs, l)
		if l != nil {
			b.known++
		}
	}
	return i
}

// lookup finds the leg of a frame and counts the frame there.
func (b *batch) lookup(r *registry, s *segment, f tpacket.Frame, last bool) (l *leg, done bool) {
	ns := f.Nanos()
	b.newest = max(b.newest, ns)
	if ns <= b.from.after {
		return repeated, true
	}
	if !s.parse(f) {
		return nil, true
	}
	if b.head == nil || b.key != s.key {
		b.key, b.head = s.key, r.legs[s.key]
	}
	l = b.head.at(ns).sideOf(s, f)
	if !last && s.opens() {
		if l == nil {
			return nil, false
		}
		if ended := l.flow.ended.Load(); ended != 0 && ns > ended {
			return nil, false
		}
	}
	if l == nil {
		return nil, true
	}
	l.open(s, ns)
	if !b.from.loopback || !f.Outgoing() { // there everything is seen twice
		l.count(s)
	}
	return l, true
}
