package balance

import "sync/atomic"

// Load counts the active flows of a backend, those of all workers. One may
// outlive a Pool, so that after a reload the flows of before still count.
type Load struct {
	active atomic.Int64
}

// Active is the number of flows.
func (l *Load) Active() int { return int(l.active.Load()) }

// target is what the data path needs of a member. It never changes.
type target struct {
	load  *Load
	limit int64 // 0: none
	index int   // in the Pool
}

// full reports whether t may have no further flow.
func (t *target) full() bool {
	return t.limit > 0 && t.load.active.Load() >= t.limit
}

// usable reports whether t may be chosen for a flow that has tried tried.
func (t *target) usable(tried *Set) bool {
	return !tried.Has(t.index) && !t.full()
}
