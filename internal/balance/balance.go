package balance

// MaxTries bounds how many backends one flow may try.
const MaxTries = 11

// Set holds the backends, by index, that a flow has tried. Its zero value is
// empty. It holds at most MaxTries members.
type Set struct {
	members [MaxTries]uint16
	n       uint8
}

// Add puts backend i into the set.
func (s *Set) Add(i int) {
	if int(s.n) < len(s.members) && !s.Has(i) {
		s.members[s.n] = uint16(i)
		s.n++
	}
}

// Has reports whether backend i is in the set.
func (s *Set) Has(i int) bool {
	for _, m := range s.members[:s.n] {
		if int(m) == i {
			return true
		}
	}
	return false
}

// Len is the number of backends in the set.
func (s *Set) Len() int { return int(s.n) }

// Picker chooses among n backends, numbered from 0. Pick returns one that is
// not in tried, and false if there is none.
type Picker interface {
	Pick(tried *Set) (int, bool)
}

// RoundRobin takes the backends in turn.
type RoundRobin struct {
	n, next int
}

// NewRoundRobin returns a picker over n backends that begins at first, modulo
// n: workers that begin at different ones spread short bursts evenly.
func NewRoundRobin(n, first int) *RoundRobin {
	r := &RoundRobin{n: n}
	if n > 0 {
		r.next = first % n
	}
	return r
}

// Pick implements Picker.
func (r *RoundRobin) Pick(tried *Set) (int, bool) {
	for range r.n {
		i := r.next
		if r.next++; r.next == r.n {
			r.next = 0
		}
		if !tried.Has(i) {
			return i, true
		}
	}
	return 0, false
}
