package balance

import (
	"math"
	"math/bits"
	"math/rand/v2"
)

// Selector chooses for one worker; it is not locked.
type Selector struct {
	view   *View
	worker int
	now    *snapshot // what place is about
	place  uint64    // in now.sequence, times 2^placeBits
	rng    rand.PCG
}

// placeBits are the bits of a fraction of a place. They keep what a change of the
// sequence would lose by rounding: with many changes it adds up.
const placeBits = 20

// Selector returns a Selector over v. Those of different workers begin at
// different members, which spreads short bursts evenly, and draw different
// lots.
func (v *View) Selector(worker int) *Selector {
	s := &Selector{view: v, worker: worker, now: &snapshot{}}
	s.rng.Seed(v.pool.seed, uint64(worker))
	s.adopt(v.current.Load())
	return s
}

// Pick chooses a member, by its index in the Pool, for a flow that has tried
// tried. It is false if there is none to choose.
func (s *Selector) Pick(k *Key, tried *Set) (int, bool) {
	if now := s.view.current.Load(); now != s.now {
		s.adopt(now)
	}
	if len(s.now.candidates) == 0 {
		return 0, false
	}
	var t *target
	switch s.view.pool.algorithm {
	case RoundRobin:
		t = s.inTurn(tried)
	case LeastConn:
		t = s.leastLoaded(tried)
	case RandomTwo:
		t = s.lessOfTwo(tried)
	case SourceHash:
		t = s.lookup(k.hashClient(s.view.pool.seed), tried)
	case Maglev:
		t = s.lookup(s.flowHash(k), tried)
	case First:
		t = s.now.candidates.after(0, tried)
	}
	if t == nil {
		t = s.now.spare(tried)
	}
	if t == nil {
		return 0, false
	}
	return t.index, true
}

// Full reports whether a flow that has tried tried would have a member if one
// were not at its limit. It goes by what the last Pick went by.
func (s *Selector) Full(tried *Set) bool {
	for i := range s.now.candidates {
		if t := &s.now.candidates[i].target; !tried.Has(t.index) && t.full() {
			return true
		}
	}
	return false
}

// adopt goes over to another snapshot, to the same place in the cycle: were it
// the beginning, members there would get more with every change.
func (s *Selector) adopt(now *snapshot) {
	was, is := uint64(len(s.now.sequence)), uint64(len(now.sequence))
	switch {
	case was > 0:
		s.place = s.place * is / was
	case is > 0:
		s.place = uint64(s.worker) % is << placeBits
	}
	s.now = now
}

// turn takes the next place of the sequence.
func (s *Selector) turn() int {
	i := s.place >> placeBits
	if s.place += 1 << placeBits; s.place>>placeBits == uint64(len(s.now.sequence)) {
		s.place -= uint64(len(s.now.sequence)) << placeBits
	}
	return int(s.now.sequence[i])
}

// maxSteps is how often a choice that cannot be used is made anew before the
// candidates are simply gone through.
const maxSteps = 32

func (s *Selector) inTurn(tried *Set) *target {
	var i int
	for range maxSteps {
		i = s.turn()
		if t := &s.now.candidates[i].target; t.usable(tried) {
			return t
		}
	}
	return s.now.candidates.after(i, tried)
}

// leastLoaded looks at all candidates, beginning with the one whose turn it is:
// of those equally loaded the first is taken, so that idle backends take turns
// by weight.
func (s *Selector) leastLoaded(tried *Set) *target {
	all := s.now.candidates
	first := s.turn()
	best, least := all[first:].leastLoaded(tried, math.MaxUint64)
	if least > 0 {
		if other, _ := all[:first].leastLoaded(tried, least); other != nil {
			best = other
		}
	}
	return best
}

// maxDraws bounds how often a lot is drawn to find two different candidates.
const maxDraws = 8

// lessOfTwo draws two candidates by weight.
func (s *Selector) lessOfTwo(tried *Set) *target {
	var one *candidate
	var i int
	for range maxDraws {
		i = s.draw()
		c := &s.now.candidates[i]
		switch {
		case c == one || !c.usable(tried):
		case one == nil:
			one = c
		case c.load.active.Load()*one.weight < one.load.active.Load()*c.weight:
			return &c.target
		default:
			return &one.target
		}
	}
	if one != nil {
		return &one.target // any other is too light to be drawn
	}
	return s.now.candidates.after(i, tried)
}

// draw returns a candidate, each as likely as its weight says.
func (s *Selector) draw() int {
	return int(s.now.sequence[scale(s.rng.Uint64(), len(s.now.sequence))])
}

// flowHash hashes what Maglev goes by.
func (s *Selector) flowHash(k *Key) uint64 {
	if s.view.pool.hash == ClientIP {
		return k.hashClient(s.view.pool.seed)
	}
	return k.hashFlow(s.view.pool.seed)
}

// lookup returns the owner of the slot that hash falls on. If that cannot be
// used, the hash is hashed again: what a member cannot take goes to all others
// by weight, and on every node to the same. The slot next to it would not do, as
// members of a Maglev table keep meeting the same neighbours.
func (s *Selector) lookup(hash uint64, tried *Set) *target {
	table := s.now.table
	for range maxSteps {
		if t := &s.view.pool.targets[table[scale(hash, len(table))]]; t.usable(tried) {
			return t
		}
		hash = Mix(hash)
	}
	return s.now.candidates.after(scale(hash, len(s.now.candidates)), tried)
}

// scale maps a random number to one below n.
func scale(random uint64, n int) int {
	high, _ := bits.Mul64(random, uint64(n))
	return int(high)
}

// spare returns a backup for a flow that has tried all candidates. If one of
// them is only full there is none.
func (n *snapshot) spare(tried *Set) *target {
	for i := range n.candidates {
		if !tried.Has(n.candidates[i].index) {
			return nil
		}
	}
	for i := range n.reserve {
		if t := &n.reserve[i]; t.usable(tried) {
			return t
		}
	}
	return nil
}
