package tap

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// maxEvents is how many events a sink may have in its queue.
const maxEvents = 1024

// item is a batch or an event.
type item struct {
	batch *batch
	event *Event
}

// queue is what waits for a sink.
type queue struct {
	mu     sync.Mutex
	items  []item
	events int
	closed bool
	wake   chan struct{}
}

// put appends an item.
func (q *queue) put(it item) {
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case q.closed:
		return
	case it.batch != nil:
		it.batch.retain()
	case q.events == maxEvents:
		return
	default:
		q.events++
	}
	q.items = append(q.items, it)
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// outdated takes out the oldest batch of newest's ring if the ring needs its block
// back, now that newest has come: a ring is filled in order, so that a block that
// is kept for long stops all of it. It is nil if there is none.
func (q *queue) outdated(newest *batch) *batch {
	q.mu.Lock()
	defer q.mu.Unlock()
	for i, it := range q.items {
		if it.batch == nil || it.batch.from != newest.from {
			continue
		}
		if newest.block.Sequence()-it.batch.block.Sequence() < newest.from.keep {
			return nil
		}
		q.items = slices.Delete(q.items, i, i+1)
		return it.batch
	}
	return nil
}

// take waits for an item, or for a tick, which gives an empty one. It is false
// when ctx ends, or the queue is closed and empty.
func (q *queue) take(ctx context.Context, tick <-chan time.Time) (it item, ok bool) {
	for {
		q.mu.Lock()
		if len(q.items) > 0 {
			it = q.items[0]
			q.items[0] = item{}
			q.items = q.items[1:]
			if it.event != nil {
				q.events--
			}
			q.mu.Unlock()
			return it, true
		}
		closed := q.closed
		q.mu.Unlock()
		if closed {
			return item{}, false
		}
		select {
		case <-q.wake:
		case <-tick:
			return item{}, true
		case <-ctx.Done():
			return item{}, false
		}
	}
}

// close lets take go on until the queue is empty.
func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.closed {
		q.closed = true
		close(q.wake)
	}
}

// discard closes the queue and returns what is in it.
func (q *queue) discard() (left []*batch) {
	q.close()
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, it := range q.items {
		if it.batch != nil {
			left = append(left, it.batch)
		}
	}
	q.items, q.events = nil, 0
	return left
}

// sink is a capture's or a viewer's part in the distribution.
type sink struct {
	name string
	sel  *selector
	queue
	encoder

	packets, bytes, events atomic.Uint64 // written
	// dropped packets in droppedBlocks were lost because the sink was slow.
	dropped, droppedBlocks atomic.Uint64
	ringBase               ringTotals // before it was there
}

func newSink(name string, sel *selector, wire bool, d *directory) *sink {
	s := &sink{name: name, sel: sel}
	s.wake = make(chan struct{}, 1)
	s.init(sel, wire, d)
	return s
}

// push queues a batch, if it may have packets for the sink, and drives out those
// that are too old for the ring. It never waits.
func (s *sink) push(b *batch) {
	for old := s.outdated(b); old != nil; old = s.outdated(b) {
		s.lose(old)
	}
	if b.known > 0 || s.sel.takesStray() {
		s.put(item{batch: b})
	}
}

// lose counts the packets of a batch that is not written, and releases it.
func (s *sink) lose(b *batch) {
	if n := s.sel.count(b); n > 0 {
		s.dropped.Add(n)
		s.droppedBlocks.Add(1)
	}
	b.release()
}

// abandon gives up what is queued.
func (s *sink) abandon() {
	for _, b := range s.discard() {
		s.lose(b)
	}
}

func (s *sink) stats() CaptureStats {
	return CaptureStats{Name: s.name, Packets: s.packets.Load(), Bytes: s.bytes.Load(), SinkDrops: s.dropped.Load()}
}

// sinkList is who gets what is captured. It is replaced as a whole.
type sinkList struct{ all atomic.Pointer[[]*sink] }

func (l *sinkList) load() []*sink {
	if p := l.all.Load(); p != nil {
		return *p
	}
	return nil
}

// store is called under the Manager's lock.
func (l *sinkList) store(all []*sink) { l.all.Store(&all) }

func (l *sinkList) push(b *batch) {
	for _, s := range l.load() {
		s.push(b)
	}
}

func (l *sinkList) event(e *Event) {
	for _, s := range l.load() {
		if s.sel.takesEvent(e) {
			s.put(item{event: e})
		}
	}
}
