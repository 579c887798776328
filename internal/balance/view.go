package balance

import (
	"cmp"
	"slices"
	"sync/atomic"
)

// View is a choice of a Pool's members.
type View struct {
	pool    *Pool
	indexes []int // of the members, ascending
	byName  []int // the same in the order of their names
	order   []int // that of the two in which candidates are gone through
	current atomic.Pointer[snapshot]
}

// snapshot is what Selectors choose from. It never changes.
type snapshot struct {
	weights    []uint16   // by member of the Pool; 0: not to be chosen
	candidates candidates // those above 0
	reserve    []target   // backups, should a flow have tried all candidates
	sequence   []uint16   // places in candidates; of RoundRobin, LeastConn and RandomTwo
	table      []uint16   // members; of Maglev and SourceHash
}

// All returns the View of all members.
func (p *Pool) All() *View {
	indexes := make([]int, len(p.members))
	for i := range indexes {
		indexes[i] = i
	}
	return p.View(indexes)
}

// View returns the View of the members with the given indexes. Calls for the
// same members return the same View.
func (p *Pool) View(indexes []int) *View {
	indexes = slices.Clone(indexes)
	slices.Sort(indexes)
	indexes = slices.Compact(indexes)
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, v := range p.views {
		if slices.Equal(v.indexes, indexes) {
			return v
		}
	}
	v := &View{pool: p, indexes: indexes, byName: slices.Clone(indexes)}
	slices.SortFunc(v.byName, func(a, b int) int {
		return cmp.Compare(p.members[a].name, p.members[b].name)
	})
	v.order = v.indexes
	if p.algorithm == Maglev || p.algorithm == SourceHash {
		v.order = v.byName // the order of members is not to count
	}
	v.publish(*p.states.Load())
	p.views = append(p.views, v)
	return v
}

// publish makes states what Selectors go by, if that is different for them.
func (v *View) publish(states []State) {
	old := v.current.Load()
	weights, reserve := v.eligible(states)
	if old != nil && slices.Equal(old.weights, weights) && slices.Equal(old.reserve, reserve) {
		return
	}
	s := &snapshot{weights: weights, reserve: reserve}
	for _, i := range v.order {
		if w := weights[i]; w > 0 {
			s.candidates = append(s.candidates, candidate{v.pool.targets[i], int64(w), 1 << 32 / uint64(w)})
		}
	}
	switch {
	case len(s.candidates) == 0:
	case old != nil && slices.Equal(old.weights, weights):
		s.sequence, s.table = old.sequence, old.table
	default:
		v.prepare(s, old)
	}
	v.current.Store(s)
}

// prepare computes what the algorithm needs of s.
func (v *View) prepare(s, old *snapshot) {
	switch v.pool.algorithm {
	case RoundRobin, LeastConn, RandomTwo:
		s.sequence = sequence(s.candidates)
	case SourceHash:
		s.table = v.rendezvous(s.weights, old)
	case Maglev:
		s.table = v.maglev(s.weights)
	case First:
	}
}

// eligible returns the weights of the members that may be chosen, and the
// backups in reserve. If there is no member but backups, it is them.
func (v *View) eligible(states []State) ([]uint16, []target) {
	weights := make([]uint16, len(states))
	backups := make([]uint16, len(states))
	var reserve []target
	var primary bool
	for _, i := range v.order {
		s := states[i]
		switch {
		case !s.Up || s.Weight == 0:
		case v.pool.members[i].backup:
			backups[i] = uint16(s.Weight)
			reserve = append(reserve, v.pool.targets[i])
		default:
			weights[i] = uint16(s.Weight)
			primary = true
		}
	}
	if primary {
		return weights, reserve
	}
	return backups, nil
}
