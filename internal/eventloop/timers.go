package eventloop

import (
	"math"
	"time"
)

// Timer is a point in time at which its owner wants to be called. It is
// embedded in the owner and costs nothing to create.
type Timer struct {
	when int64
	pos  int32 // 1 + index in the heap; 0: not scheduled
	Slot uint32
}

// Scheduled reports whether t is waiting to expire.
func (t *Timer) Scheduled() bool { return t.pos != 0 }

// timers is a binary heap, soonest first. Owners refresh an idle timer by
// keeping a stamp and looking at it when the timer is due, so the heap moves
// once per timeout and not once per byte.
type timers struct{ heap []*Timer }

// Schedule makes t due at the time at, on the scale of Now. A timer that was
// scheduled is moved.
func (l *Loop) Schedule(t *Timer, at int64) {
	h := &l.timers
	if t.pos == 0 {
		h.heap = append(h.heap, t)
		t.pos = int32(len(h.heap))
	}
	t.when = at
	h.up(int(t.pos) - 1)
	h.down(int(t.pos) - 1)
}

// Cancel takes t out; it is harmless if t is not scheduled.
func (l *Loop) Cancel(t *Timer) {
	if t.pos != 0 {
		l.timers.remove(int(t.pos) - 1)
	}
}

// due removes and returns a timer whose time has come, or nil.
func (h *timers) due(now int64) *Timer {
	if len(h.heap) == 0 || h.heap[0].when > now {
		return nil
	}
	t := h.heap[0]
	h.remove(0)
	return t
}

// wait is the time to the next timer in milliseconds for epoll_wait(2),
// rounded up, or -1 if there is none.
func (h *timers) wait(now int64) int {
	if len(h.heap) == 0 {
		return -1
	}
	d := h.heap[0].when - now
	if d <= 0 {
		return 0
	}
	ms := (d-1)/int64(time.Millisecond) + 1 // d may be near the largest number
	return int(min(ms, math.MaxInt32))
}

func (h *timers) remove(i int) {
	last := len(h.heap) - 1
	h.heap[i].pos = 0
	if i != last {
		h.put(i, h.heap[last])
	}
	h.heap[last] = nil
	h.heap = h.heap[:last]
	if i != last {
		h.up(i)
		h.down(i)
	}
}

func (h *timers) put(i int, t *Timer) {
	h.heap[i] = t
	t.pos = int32(i + 1)
}

func (h *timers) up(i int) {
	t := h.heap[i]
	for i > 0 {
		parent := (i - 1) / 2
		if h.heap[parent].when <= t.when {
			break
		}
		h.put(i, h.heap[parent])
		i = parent
	}
	h.put(i, t)
}

func (h *timers) down(i int) {
	t := h.heap[i]
	for {
		child := 2*i + 1
		if child >= len(h.heap) {
			break
		}
		if child+1 < len(h.heap) && h.heap[child+1].when < h.heap[child].when {
			child++
		}
		if h.heap[child].when >= t.when {
			break
		}
		h.put(i, h.heap[child])
		i = child
	}
	h.put(i, t)
}
