package admin

import (
	"container/heap"
	"slices"
)

// Collector answers a [FlowQuery] from flows that it is shown one by one. It
// keeps a copy of those that come first and no more, so that it costs the
// same however many there are. One per worker, without locks, and then merged.
type Collector struct {
	query   FlowQuery
	kept    flowHeap
	matched int
	total   int
}

// NewCollector returns an empty collector for q.
func NewCollector(q FlowQuery) *Collector {
	c := &Collector{query: q}
	c.kept.query = &c.query
	return c
}

// Add shows a flow to c, which does not keep the pointer.
func (c *Collector) Add(f *Flow) {
	c.total++
	if !c.query.Match(f) {
		return
	}
	c.matched++
	c.keep(f)
}

// keep takes f in if it is among the first.
func (c *Collector) keep(f *Flow) {
	switch h := &c.kept; {
	case len(h.flows) < c.query.Limit:
		heap.Push(h, f)
	case len(h.flows) > 0 && c.query.Less(f, &h.flows[0]):
		h.flows[0] = *f
		heap.Fix(h, 0)
	}
}

// Merge adds what other, a collector for the same query, has been shown.
func (c *Collector) Merge(other *Collector) {
	c.total += other.total
	c.matched += other.matched
	for i := range other.kept.flows {
		c.keep(&other.kept.flows[i])
	}
}

// List returns the answer.
func (c *Collector) List() FlowList {
	flows := slices.Clone(c.kept.flows)
	slices.SortFunc(flows, func(a, b Flow) int {
		if c.query.Less(&a, &b) {
			return -1
		}
		return 1
	})
	return FlowList{Flows: flows, Matched: c.matched, Total: c.total}
}

// flowHeap has the flow that comes last on top. It implements heap.Interface.
type flowHeap struct {
	query *FlowQuery
	flows []Flow
}

func (h *flowHeap) Len() int           { return len(h.flows) }
func (h *flowHeap) Less(i, j int) bool { return h.query.Less(&h.flows[j], &h.flows[i]) }
func (h *flowHeap) Swap(i, j int)      { h.flows[i], h.flows[j] = h.flows[j], h.flows[i] }

// Push implements heap.Interface.
func (h *flowHeap) Push(f any) { h.flows = append(h.flows, *f.(*Flow)) }

// Pop implements heap.Interface.
func (h *flowHeap) Pop() any {
	panic("not needed: the top is replaced in its place")
}
