package balance

import "slices"

// DefaultTableSize is the number of slots of a Maglev table unless another is
// configured. With a hundred slots for each member the spread is within 1 %.
const DefaultTableSize = 65537

// MaxTableSize bounds it: 10 MB per View.
const MaxTableSize = 5_000_011

// empty is a slot without a member.
const empty = 1<<16 - 1

// walker goes through the slots in the order that a member prefers.
type walker struct {
	member       uint16
	weight, took uint64
	slot, skip   int
}

// maglev returns the table of section 3.4 of the paper: members take turns, and
// each turn gives a member the slot it prefers among those that are left. The
// heaviest takes a turn in every round, the others in as many rounds as their
// weight is to its, rounded to the nearest, so that wherever the table is full
// nobody is more than about a turn off.
//
// Members take their turns in the order of their names.
func (v *View) maglev(weights []uint16) []uint16 {
	var walkers []walker
	var heaviest uint64
	size := v.pool.tableSize
	for _, i := range v.byName {
		if w := uint64(weights[i]); w > 0 {
			m := &v.pool.members[i]
			walkers = append(walkers, walker{
				member: uint16(i), weight: w,
				slot: int(m.offset % uint64(size)), skip: int(m.skip%uint64(size-1)) + 1,
			})
			heaviest = max(heaviest, w)
		}
	}
	if len(walkers) == 0 {
		return nil
	}
	table := slices.Repeat([]uint16{empty}, size)
	for round, left := uint64(1), size; ; round++ {
		for i := range walkers {
			w := &walkers[i]
			if 2*round*w.weight < (2*w.took+1)*heaviest {
				continue
			}
			w.took++
			for table[w.slot] != empty {
				w.step(size)
			}
			table[w.slot] = w.member
			if left--; left == 0 {
				return table
			}
		}
	}
}

// step goes on to the next slot. As the size is prime, every skip visits all.
func (w *walker) step(size int) {
	if w.slot += w.skip; w.slot >= size {
		w.slot -= size
	}
}

// prime reports whether n is a prime number.
func prime(n int) bool {
	for d := 2; d*d <= n; d++ {
		if n%d == 0 {
			return false
		}
	}
	return n > 1
}
