package balance

// rendezvousBits is the base-2 logarithm of the slots of a SourceHash table. A
// hundred members have 650 slots each, give or take 25.
const rendezvousBits = 16

// bid is what a member bids for a slot.
type bid struct {
	member uint16
	rank   int // in the order of names
	weight uint64
	hash   uint64 // of the slot and the member
}

// contest finds the owners of slots: of each the one whose bid beats all others.
// So a member that goes gives away its own slots and no other, and one that
// comes takes those that are its own.
type contest struct {
	logs  *logarithms
	bids  []bid // of the candidates; the hash is still the member's alone
	owner bid
}

// beats is a total order, so that it does not matter in which order bids are
// looked at. With u = hash / 2^64 evenly distributed, -log(u) / weight is lowest
// for a member as often as its weight is to the sum of all.
func (c *contest) beats(a, b *bid) bool {
	if a.weight <= b.weight && a.hash < b.hash {
		return false // as the rest would say, without logarithms
	}
	left, right := c.logs.negative(a.hash)*b.weight, c.logs.negative(b.hash)*a.weight
	if left != right {
		return left < right
	}
	if a.hash != b.hash {
		return a.hash > b.hash
	}
	return a.rank < b.rank
}

// enter lets a bid for slot.
func (c *contest) enter(slot uint64, a bid) {
	a.hash = Mix(a.hash ^ slot*0x9e3779b97f4a7c15)
	if c.owner.weight == 0 || c.beats(&a, &c.owner) {
		c.owner = a
	}
}

// Mix is the finalizer of splitmix64: every bit of x counts in every bit of the
// result.
func Mix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// rendezvous returns the table for weights. Given an older table and its
// weights, it asks only those bids that can have changed the outcome: when one
// backend of a hundred goes down or comes up, a fiftieth of them.
func (v *View) rendezvous(weights []uint16, old *snapshot) []uint16 {
	c := contest{logs: newLogarithms()}
	bids := make([]bid, len(weights)) // by member
	var grown []bid
	for rank, i := range v.byName {
		if weights[i] == 0 {
			continue
		}
		bids[i] = bid{uint16(i), rank, uint64(weights[i]), v.pool.members[i].bid}
		c.bids = append(c.bids, bids[i])
		if old != nil && weights[i] > old.weights[i] {
			grown = append(grown, bids[i])
		}
	}
	if len(c.bids) == 0 {
		return nil
	}
	table := make([]uint16, 1<<rendezvousBits)
	for slot := range table {
		c.owner = bid{}
		entrants := c.bids
		if old != nil && old.table != nil {
			if was := old.table[slot]; weights[was] >= old.weights[was] {
				c.enter(uint64(slot), bids[was])
				entrants = grown
			}
		}
		for _, a := range entrants {
			c.enter(uint64(slot), a)
		}
		table[slot] = c.owner.member
	}
	return table
}
