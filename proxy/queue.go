package proxy

import (
	"sync/atomic"
	"time"
)

// queue is the flows of one worker that wait for the same backends to have room
// (max_connections of a backend), first come first served. The workers' queues
// of the same backends share a queueTotals, by which room goes to the worker
// whose flow has waited longest.
type queue struct {
	first, last *flow
	woken       bool // in worker.woken

	worker int
	stats  *serviceStats
	key    queueKey
	totals *queueTotals
}

// queueKey names the flows that wait for the same backends.
type queueKey struct {
	route string
	pool  int
}

// queueTotals is what the workers know of each other's queues.
type queueTotals struct {
	waiting atomic.Int64    // flows of all workers
	heads   []atomic.Uint64 // by worker: the ticket of its first flow; 0: it has none
}

func newQueueTotals(workers int) *queueTotals {
	return &queueTotals{heads: make([]atomic.Uint64, workers)}
}

// push puts f at its place: the end, or where its ticket says if it has one, as
// it comes from another queue.
func (q *queue) push(f *flow) {
	if f.ticket == 0 {
		f.ticket = q.stats.tickets.Add(1)
	}
	f.before = q.last
	for f.before != nil && f.before.ticket > f.ticket {
		f.before = f.before.before
	}
	if f.before != nil {
		f.behind, f.before.behind = f.before.behind, f
	} else {
		f.behind, q.first = q.first, f
		q.totals.heads[q.worker].Store(f.ticket)
	}
	if f.behind != nil {
		f.behind.before = f
	} else {
		q.last = f
	}
	q.totals.waiting.Add(1)
}

// remove takes f out, wherever it stands.
func (q *queue) remove(f *flow) {
	if f.before != nil {
		f.before.behind = f.behind
	} else {
		q.first = f.behind
		var head uint64
		if q.first != nil {
			head = q.first.ticket
		}
		q.totals.heads[q.worker].Store(head)
	}
	if f.behind != nil {
		f.behind.before = f.before
	} else {
		q.last = f.before
	}
	f.before, f.behind, f.ticket = nil, nil, 0
	q.totals.waiting.Add(-1)
}

// next is the worker whose flow has waited longest, or -1.
func (t *queueTotals) next() int {
	best, worker := uint64(0), -1
	for i := range t.heads {
		if h := t.heads[i].Load(); h != 0 && (best == 0 || h < best) {
			best, worker = h, i
		}
	}
	return worker
}

// waitingFor is the number of flows that wait for room in the pool of b.
func (svc *service) waitingFor(b Backend) (n int64) {
	kinds := []int{poolV4, poolAny}
	if b.Addr.Addr().Is6() {
		kinds[0] = poolV6
	}
	for _, kind := range kinds {
		n += svc.stats.queue(queueKey{svc.routeName(uint16(b.Route)), kind}).waiting.Load()
	}
	return n
}

// noBackend has f wait for a backend with room, or ends it.
func (w *worker) noBackend(f *flow) {
	svc := f.part.svc
	switch {
	case f.route == 0 && svc.noDefault:
		w.end(f, NoRoute)
	case !f.selector().Full(&f.tried):
		w.end(f, NoBackend)
	default:
		w.enqueue(f)
	}
}

// enqueue has f wait until one of its backends has room.
func (w *worker) enqueue(f *flow) {
	svc := f.part.svc
	if svc.stats.queued.Add(1) > int64(svc.QueueSize) {
		svc.stats.queued.Add(-1)
		w.end(f, QueueFull)
		return
	}
	f.state = queued
	if f.ticket == 0 {
		f.queuedAt = w.loop.Now()
	}
	f.queue().push(f)
	f.deadline = f.queuedAt + int64(svc.QueueTimeout)
	w.loop.Schedule(&f.timer, f.due())
	// The room may have come between the choice and the ticket: then nobody
	// was told.
	w.wake(f.queue())
}

// queue is where f waits.
func (f *flow) queue() *queue { return f.part.queues[f.route][f.pool()] }

// leaveQueue takes f out of its queue.
func (w *worker) leaveQueue(f *flow) {
	f.queue().remove(f)
	f.part.svc.stats.queued.Add(-1)
	f.state = waiting
}

// roomAt lets a flow in that waits for room at the backend of f, which has just
// left it.
func (w *worker) roomAt(f *head) {
	if len(f.part.queues) == 0 {
		return // of UDP
	}
	q := f.part.queues[f.route][f.pool()]
	if q.totals.waiting.Load() > 0 || q.stats.queued.Load() == 0 {
		w.passOn(q)
		return
	}
	// Since f chose it, a reload may have given the backend to another pool,
	// for which others wait.
	for _, q := range w.queues[q.stats] {
		w.passOn(q)
	}
}

// passOn has the worker go on whose flow has waited longest among the queues
// that q is one of.
func (w *worker) passOn(q *queue) {
	if q.totals.waiting.Load() == 0 {
		return
	}
	switch to := q.totals.next(); {
	case to == w.id:
		w.wake(q)
	case to >= 0:
		other, key, stats := w.proxy.workers[to], q.key, q.stats
		other.loop.Post(func() {
			if q := other.queueOf(stats, key); q.first != nil {
				other.wake(q)
			} else {
				other.passOn(q) // it has gone meanwhile
			}
		})
	}
}

// wake has q looked at when this batch of events is done.
func (w *worker) wake(q *queue) {
	if !q.woken && q.first != nil {
		q.woken = true
		w.woken = append(w.woken, q)
	}
}

// wakeAll has all queues of a service looked at: its backends have changed.
func (w *worker) wakeAll(stats *serviceStats) {
	for _, q := range w.queues[stats] {
		w.wake(q)
	}
}

// serveQueues gives what room there is to the flows of woken queues.
func (w *worker) serveQueues() {
	for len(w.woken) > 0 {
		q := w.woken[len(w.woken)-1]
		w.woken = w.woken[:len(w.woken)-1]
		q.woken = false
		for f := q.first; f != nil && w.choose(&f.head); f = q.first {
			w.leaveQueue(f)
			w.loop.Cancel(&f.timer)
			f.part.shard.queueWait.observe(time.Duration(w.loop.Now() - f.queuedAt))
			w.dial(f)
		}
		if f := q.first; f == nil {
			w.passOn(q) // there may be room left
		} else if !f.selector().Full(&f.tried) {
			w.emptyQueue(q)
		}
	}
}

// emptyQueue ends the flows of q, for whose backends it makes no sense to wait
// any more: they are down, not full.
func (w *worker) emptyQueue(q *queue) {
	for q.first != nil {
		w.end(q.first, NoBackend)
	}
}

// queueOf returns w's queue of a service for key.
func (w *worker) queueOf(stats *serviceStats, key queueKey) *queue {
	if w.queues[stats] == nil {
		w.queues[stats] = map[queueKey]*queue{}
	}
	q := w.queues[stats][key]
	if q == nil {
		q = &queue{worker: w.id, stats: stats, key: key, totals: stats.queue(key)}
		w.queues[stats][key] = q
	}
	return q
}
