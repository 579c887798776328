package balance

// candidate is a member that may be chosen.
type candidate struct {
	target
	weight int64
	part   uint64 // of the weight that a flow takes, times 2^32
}

// loaded is the load of c for its weight.
func (c *candidate) loaded() uint64 { return uint64(c.load.active.Load()) * c.part }

type candidates []candidate

// after returns the first candidate from i on, in a circle, that can be used.
func (all candidates) after(i int, tried *Set) *target {
	for range all {
		if t := &all[i].target; t.usable(tried) {
			return t
		}
		if i++; i == len(all) {
			i = 0
		}
	}
	return nil
}

// leastLoaded returns the first candidate with the least load for its weight,
// and that load, if it is below bound; else nil and bound.
//
// Four at a time it takes half as long: their loads are compared without a
// branch, and few fours have one that is less than those before.
func (all candidates) leastLoaded(tried *Set, bound uint64) (best *target, least uint64) {
	least = bound
	for len(all) >= 4 {
		c := (*[4]candidate)(all)
		if min(min(c[0].loaded(), c[1].loaded()), min(c[2].loaded(), c[3].loaded())) < least {
			best, least = all[:4].lessLoaded(tried, best, least)
		}
		all = all[4:]
	}
	return all.lessLoaded(tried, best, least)
}

// lessLoaded returns the first candidate with the least load of those below
// least, else best.
func (all candidates) lessLoaded(tried *Set, best *target, least uint64) (*target, uint64) {
	for i := range all {
		c := &all[i]
		if load := c.loaded(); load < least && c.usable(tried) {
			best, least = &c.target, load
		}
	}
	return best, least
}
