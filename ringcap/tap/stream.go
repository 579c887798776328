package tap

// maxHoles is how many parts of a stream that were not seen are remembered. Of
// the oldest beyond that a retransmission does not count.
const maxHoles = 8

// hole is a part of a stream that was not seen, in sequence numbers.
type hole struct{ from, to uint32 }

// stream counts the bytes of one direction that were seen, each once.
type stream struct {
	bytes uint64
	next  uint32 // behind the highest byte seen
	known bool   // next is
	whole bool   // the first segment was seen
	holes []hole
}

// add counts a segment of TCP.
func (s *stream) add(seq uint32, n int, syn bool) {
	if syn {
		seq++ // also of what comes with it
		if !s.known {
			s.known, s.whole, s.next = true, true, seq
		}
	}
	if n == 0 {
		return
	}
	if !s.known {
		s.known, s.next = true, seq
	}
	end := seq + uint32(n)
	switch {
	case int32(end-s.next) <= 0:
		s.fill(seq, end)
		return
	case int32(seq-s.next) > 0:
		if len(s.holes) == maxHoles {
			s.holes = append(s.holes[:0], s.holes[1:]...)
		}
		s.holes = append(s.holes, hole{s.next, seq})
	case seq != s.next:
		s.fill(seq, s.next)
		seq = s.next
	}
	s.bytes += uint64(end - seq)
	s.next = end
}

// fill counts what of a part that lies below next was not seen before.
func (s *stream) fill(from, to uint32) {
	for i := 0; i < len(s.holes); i++ {
		h := s.holes[i]
		a, b := later(h.from, from), earlier(h.to, to)
		if int32(b-a) <= 0 {
			continue
		}
		s.bytes += uint64(b - a)
		switch {
		case a == h.from && b == h.to:
			s.holes = append(s.holes[:i], s.holes[i+1:]...)
			i--
		case a == h.from:
			s.holes[i].from = b
		case b == h.to:
			s.holes[i].to = a
		default:
			s.holes[i].to = a
			if len(s.holes) < maxHoles {
				s.holes = append(s.holes, hole{b, h.to})
			}
		}
	}
}

func later(a, b uint32) uint32 {
	if int32(a-b) > 0 {
		return a
	}
	return b
}

func earlier(a, b uint32) uint32 {
	if int32(a-b) < 0 {
		return a
	}
	return b
}
