package main

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tproxyd/tproxyd/internal/accesslog"
	"github.com/tproxyd/tproxyd/ringcap/tap"
)

const (
	// recordHold is how long a record waits for what the tap has to say of its
	// flow, beyond what packets may take through the rings. The tap speaks some
	// 300 ms after the end of a flow.
	recordHold = time.Second
	// maxHeld is how many batches of records wait. Before there are more, the
	// oldest goes on as it is.
	maxHeld = 128
	// maxSeen is how many statements wait for their record, in each of two
	// generations.
	maxSeen = 1 << 16
)

// tapRecords passes records on to the access log. While there is a tap, they are
// held until it has said how much it saw of their flows.
type tapRecords struct {
	*accessLog

	hold atomic.Int64 // nanoseconds; 0: there is no tap

	mu   sync.Mutex
	held []heldRecords // the oldest first
	// What the tap has said, lately and before that.
	young, old map[uint64]seenOfFlow
	turn       time.Time // when young is to become old
}

// heldRecords is a batch that waits, and where it is to go.
type heldRecords struct {
	batch []accesslog.Record
	to    *accesslog.Sink
	due   time.Time
}

// seenOfFlow is which part of a flow's bytes the tap saw on each leg.
type seenOfFlow struct{ client, upstream float64 }

// setDelay says how long packets may take through the rings, or by a negative value
// that there is no tap.
func (r *tapRecords) setDelay(delay time.Duration) {
	if delay >= 0 {
		r.hold.Store(int64(delay + recordHold))
	} else {
		r.hold.Store(0)
	}
}

// completed is told by the tap what it saw of a flow.
func (r *tapRecords) completed(c tap.Completeness) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	if r.young == nil || now.After(r.turn) || len(r.young) >= maxSeen {
		// A worker keeps a record for up to a second before it offers it.
		r.young, r.old, r.turn = map[uint64]seenOfFlow{}, r.young, now.Add(time.Duration(r.hold.Load())+2*time.Second)
	}
	r.young[c.Flow] = seenOfFlow{
		client:   partOf(c.ClientIn, c.ClientOut, c.RelayedIn, c.RelayedOut),
		upstream: partOf(c.UpstreamIn, c.UpstreamOut, c.RelayedIn, c.RelayedOut),
	}
}

// partOf is which part of the relayed bytes of a leg was seen. More than was
// relayed, as a PROXY header is, makes up for nothing.
func partOf(seenIn, seenOut, in, out uint64) float64 {
	if in+out == 0 {
		return 1
	}
	return float64(min(seenIn, in)+min(seenOut, out)) / float64(in+out)
}

// Offer implements proxy.Records.
func (r *tapRecords) Offer(b []accesslog.Record) bool {
	to, hold := r.current.Load(), time.Duration(r.hold.Load())
	if hold == 0 || to != r.json { // the other format has no place for it
		return to.Offer(b)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.held) >= maxHeld {
		r.pass()
	}
	r.held = append(r.held, heldRecords{b, to, time.Now().Add(hold)})
	time.AfterFunc(hold, r.passDue)
	return true
}

// passDue passes the batches on that have waited long enough, one at a time, so
// that no worker waits for all of them.
func (r *tapRecords) passDue() {
	for one, now := true, time.Now(); one; {
		r.mu.Lock()
		if one = len(r.held) > 0 && !r.held[0].due.After(now); one {
			r.pass()
		}
		r.mu.Unlock()
	}
}

// pass passes the oldest batch on. The lock is held.
func (r *tapRecords) pass() {
	h := r.held[0]
	for i := range h.batch {
		rec := &h.batch[i]
		seen, ok := r.young[rec.FlowID]
		if !ok {
			seen, ok = r.old[rec.FlowID]
		}
		if ok {
			rec.Tapped, rec.TapClient, rec.TapUpstream = true, seen.client, seen.upstream
		}
	}
	h.to.Offer(h.batch) // it counts what it does not take
	r.held = slices.Delete(r.held, 0, 1)
}

// flush passes everything on.
func (r *tapRecords) flush() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for len(r.held) > 0 {
		r.pass()
	}
}
