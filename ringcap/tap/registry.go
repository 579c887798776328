package tap

import (
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tproxyd/tproxyd/internal/packet"
	"github.com/tproxyd/tproxyd/internal/tpacket"
)

// Limits of what is remembered.
const (
	maxPending = 1 << 16
	maxFlows   = 1 << 20
	maxEnded   = 1 << 16
	maxLegs    = 16 // of a flow, one for each backend that was tried
)

// told is one thing that the proxy told. Exactly one of the pointers is set,
// or none: then the flow with that id has ended.
type told struct {
	flow    *Flow
	event   *Event
	at      int64
	id      uint64
	in, out uint64
	reason  string
}

// registry knows the flows. Workers append to pending under a lock that is held
// for no more than that; the readers of rings take it over.
type registry struct {
	pendingMu sync.Mutex
	pending   []told
	forgotten atomic.Uint64

	mu     sync.RWMutex
	flows  map[uint64]*flow
	legs   map[packet.Ends]*leg // the newest of each
	ended  []*flow              // in the order in which they ended
	linger time.Duration
	spare  []told

	reported int    // how many of ended are done with
	epoch    uint64 // of the set of rings: counts up when it changes
	since    int64  // it is as it is
	running  bool   // there are any

	// emit is called with the lock held: it must not wait.
	emit func(*Event)
	now  func() time.Time
}

func newRegistry(emit func(*Event)) *registry {
	return &registry{flows: map[uint64]*flow{}, legs: map[packet.Ends]*leg{}, linger: minLinger, emit: emit, now: time.Now}
}

// tell never waits for anything but another tell.
func (r *registry) tell(t told) {
	r.pendingMu.Lock()
	defer r.pendingMu.Unlock()
	if len(r.pending) >= maxPending {
		r.forgotten.Add(1)
		return
	}
	r.pending = append(r.pending, t)
}

// update takes over what was told until now.
func (r *registry) update() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.pendingMu.Lock()
	batch := r.pending
	r.pending = r.spare[:0]
	r.pendingMu.Unlock()
	for i := range batch {
		switch t := &batch[i]; {
		case t.flow != nil:
			r.enter(t.flow, t.at)
		case t.event != nil:
			r.emit(t.event)
		default:
			r.end(t)
		}
	}
	clear(batch)
	if cap(batch) > 4096 { // a burst is not kept
		batch = nil
	}
	r.spare = batch
}

// enter adds a flow or what is new of one.
func (r *registry) enter(info *Flow, at int64) {
	f := r.flows[info.ID]
	if f == nil {
		if len(r.flows) >= maxFlows {
			r.forgotten.Add(1)
			return
		}
		f = &flow{id: info.ID, began: at, epoch: r.epoch}
		if !info.Began.IsZero() {
			f.began = info.Began.UnixNano()
		}
		r.flows[info.ID] = f
	}
	f.info.Store(info)
	r.addLeg(f, client, info.Client, info.Destination)
	r.addLeg(f, upstream, info.Source, info.Upstream)
}

// addLeg enters a leg both of whose ends are known, once.
func (r *registry) addLeg(f *flow, side uint8, near, far netip.AddrPort) {
	if near.Port() == 0 || far.Port() == 0 || !near.IsValid() || !far.IsValid() {
		return
	}
	k, low := endsOf(f.info.Load().Protocol, near, far)
	for _, l := range f.legs {
		if l.key == k && l.side == side {
			return
		}
	}
	if len(f.legs) == maxLegs {
		return
	}
	l := &leg{flow: f, side: side, key: k, clientLow: low}
	f.legs = append(f.legs, l)
	old := r.legs[k]
	if old != nil && old.flow == f && old.side == client {
		old.twin = l
		return
	}
	l.prev.Store(old)
	r.legs[k] = l
}

func (r *registry) end(t *told) {
	f := r.flows[t.id]
	if f == nil || f.ended.Load() != 0 {
		return
	}
	f.in, f.out, f.reason = t.in, t.out, t.reason
	f.ended.Store(t.at)
	r.ended = append(r.ended, f)
}

// find is the leg of a packet, nil if it is not known. The caller holds the
// lock for reading.
func (r *registry) find(s *segment, f tpacket.Frame) *leg {
	return r.legs[s.key].at(f.Nanos()).sideOf(s, f)
}

// forget drops the flows that ended long ago, and the oldest beyond a number.
func (r *registry) forget(now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	limit, n := now.Add(-r.linger).UnixNano(), 0
	for n < r.reported && (r.ended[n].ended.Load() < limit || len(r.ended)-n > maxEnded) {
		r.remove(r.ended[n])
		n++
	}
	if n > 0 {
		r.ended = append(r.ended[:0:0], r.ended[n:]...)
		r.reported -= n
	}
}

func (r *registry) remove(f *flow) {
	delete(r.flows, f.id)
	for _, l := range f.legs {
		r.unlink(l)
	}
}

// unlink takes a leg out of the line of those with its ends. A twin is in none.
func (r *registry) unlink(l *leg) {
	head := r.legs[l.key]
	if head == l {
		if prev := l.prev.Load(); prev != nil {
			r.legs[l.key] = prev
		} else {
			delete(r.legs, l.key)
		}
		return
	}
	for head != nil {
		prev := head.prev.Load()
		if prev == l {
			head.prev.Store(l.prev.Load())
			return
		}
		head = prev
	}
}

func (r *registry) len() int {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return len(r.flows)
}
