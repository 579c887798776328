package proxy

import "github.com/tproxyd/tproxyd/internal/eventloop"

const slabSize = 64

// slab holds the flows of a worker. A flow's address and number never change;
// ended ones are used again. A flow is in use while it has a part.
type slab[F any, P interface {
	*F
	common() *head
}] struct {
	base   uint32 // number of the first flow
	chunks []*[slabSize]F
	free   []uint32
	live   int
}

// at returns flow number i.
func (s *slab[F, P]) at(i uint32) P {
	i -= s.base
	return &s.chunks[i/slabSize][i%slabSize]
}

// take returns an unused flow, which is the caller's to give a part.
func (s *slab[F, P]) take() P {
	if len(s.free) == 0 {
		first := uint32(len(s.chunks) * slabSize)
		chunk := new([slabSize]F)
		s.chunks = append(s.chunks, chunk)
		for i := range chunk {
			n := slabSize - 1 - i // number 0 of the chunk comes out first
			number := s.base + first + uint32(n)
			P(&chunk[n]).common().timer.Slot = number
			s.free = append(s.free, number)
		}
	}
	f := s.at(s.free[len(s.free)-1])
	s.free = s.free[:len(s.free)-1]
	s.live++
	return f
}

// give clears f for its next use. Tags made for it no longer match.
func (s *slab[F, P]) give(f P) {
	h := f.common()
	number, gen := h.timer.Slot, h.gen+1
	var unused F
	*f = unused
	h.timer, h.gen = eventloop.Timer{Slot: number}, gen
	s.free = append(s.free, number)
	s.live--
}

// some calls fn for every flow in use of so many chunks, and reports whether
// there are more of them.
func (s *slab[F, P]) some(from, chunks int, fn func(P)) bool {
	for _, c := range s.chunks[min(from, len(s.chunks)):min(from+chunks, len(s.chunks))] {
		for i := range c {
			if f := P(&c[i]); f.common().part != nil {
				fn(f)
			}
		}
	}
	return from+chunks < len(s.chunks)
}

// all calls fn for every flow in use. fn may end the flow.
func (s *slab[F, P]) all(fn func(P)) {
	s.some(0, len(s.chunks), fn)
}
