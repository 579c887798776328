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
