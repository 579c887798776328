package proxy

import (
	"net/netip"

	"github.com/tproxyd/tproxyd/internal/balance"
	"github.com/tproxyd/tproxyd/internal/eventloop"
)

// The two legs of a flow. A direction has the number of the leg it reads
// from: direction client carries what the client sends.
const (
	client   = 0
	upstream = 1
)

// state is where a flow is in its life.
type state uint8

const (
	free       state = iota // not in use
	waiting                 // for a 4-tuple that is in use to become free
	connecting              // SYN sent to the upstream
	relaying                // both legs connected
	resetting               // one leg is gone; the other gets what is left, then RST
)

// flow is one proxied TCP connection. It is described in full by plain values
// and its descriptors: no closure and no goroutine holds a part of it.
type flow struct {
	timer eventloop.Timer
	part  *part
	legs  [2]leg
	dirs  [2]direction

	id      uint64
	gen     uint32 // counts the uses of this slot
	state   state
	reason  Reason
	retries uint8 // backends tried after the first
	waits   uint8 // times spent in state waiting
	ready   bool  // in worker.ready
	closer  uint8 // the leg that sent FIN first, while one direction is closed

	policy  Source // as the service says, or what prefer-client fell back to
	guarded bool   // its upstream connection is in the loop guard
	settled bool   // the upstream leg has its liveness options
	tried   balance.Set
	backend *backendStats

	choice               uint16   // of svc.Backends
	client, dest, source endpoint // source: what the upstream sees

	accepted   int64 // on the loop's clock, like the following
	connectAt  int64 // the last try began
	connected  int64 // 0: never
	lastActive int64 // last byte in either direction
	deadline   int64 // of the state connecting, waiting or resetting; see due
	drainAt    int64 // 0: not draining
	unacked    int   // while resetting: bytes that the leg which is left had not taken at the last look
}

// due is when the state connecting, waiting or resetting ends: at its deadline,
// or before that because the flow is drained.
func (f *flow) due() int64 {
	if f.drainAt != 0 {
		return min(f.deadline, f.drainAt)
	}
	return f.deadline
}

// leg is one socket of a flow.
type leg struct {
	fd       int32
	readable bool // there may be something to read
	writable bool // there may be room to write
	ending   bool // FIN or an error has come: read on after a short read
	fin      bool // FIN has come, and no error
	urgent   bool // an urgent mark has come: reads stop at it, and splice cannot pass it
	failed   bool // an error has come: the socket is dead
	wrote    bool // something was sent: Nagle could hold the next
	nodelay  bool // TCP_NODELAY is set

	// fault is the error, if a call has taken it from the socket before all
	// that the peer had sent was read. Later calls no longer tell.
	fault uint16
}

// direction carries the bytes read from one leg to the other.
type direction struct {
	pipe   *pipe   // lent while spliced bytes are in flight
	buf    *buffer // lent while copied bytes are in flight
	copied uint64
	moved  uint64 // spliced
	full   uint8  // copy: reads in a row that found a stream; splice: wake-ups in a row that did not
	stream bool   // carried by splice
	eof    bool   // the source has sent FIN
	closed bool   // and FIN was passed on
}

// pending reports whether bytes read are not yet written.
func (d *direction) pending() bool {
	return d.buf != nil || d.pipe != nil && d.pipe.held > 0
}

// path names how the direction's bytes went: splice as soon as it was used.
func (d *direction) path() string {
	switch {
	case d.moved > 0:
		return pathNames[pathSplice]
	case d.copied > 0:
		return pathNames[pathCopy]
	}
	return "none"
}

const slabSize = 64

// slab holds the flows of a worker. A flow's address and number never change;
// ended ones are used again.
type slab struct {
	chunks []*[slabSize]flow
	free   []uint32
	live   int
}

// at returns flow number i.
func (s *slab) at(i uint32) *flow { return &s.chunks[i/slabSize][i%slabSize] }

// take returns an unused flow.
func (s *slab) take() *flow {
	if len(s.free) == 0 {
		first := uint32(len(s.chunks) * slabSize)
		chunk := new([slabSize]flow)
		s.chunks = append(s.chunks, chunk)
		for i := range chunk {
			n := slabSize - 1 - i // number 0 of the chunk comes out first
			chunk[n].timer.Slot = first + uint32(n)
			s.free = append(s.free, first+uint32(n))
		}
	}
	f := s.at(s.free[len(s.free)-1])
	s.free = s.free[:len(s.free)-1]
	s.live++
	return f
}

// give clears f for its next use. Tags made for it no longer match.
func (s *slab) give(f *flow) {
	*f = flow{timer: eventloop.Timer{Slot: f.timer.Slot}, gen: f.gen + 1}
	s.free = append(s.free, f.timer.Slot)
	s.live--
}

// all calls fn for every flow in use. fn may end the flow.
func (s *slab) all(fn func(*flow)) {
	for _, c := range s.chunks {
		for i := range c {
			if c[i].state != free {
				fn(&c[i])
			}
		}
	}
}

// tag is the epoll tag of one leg of f.
func (f *flow) tag(side int) eventloop.Tag {
	return eventloop.Tag{Slot: f.timer.Slot<<1 | uint32(side), Gen: f.gen}
}

// The pools that a flow may choose from: a backend cannot see the address of a
// client of the other family.
const (
	poolV4  = iota
	poolV6  // clients with an IPv6 address
	poolAny // the source is the proxy's own address
	poolCount
)

func (f *flow) pool() int {
	switch {
	case f.policy == Host:
		return poolAny
	case f.client.v4:
		return poolV4
	}
	return poolV6
}

// target is the address of f's upstream.
func (f *flow) target() netip.AddrPort {
	if backends := f.part.svc.Backends; len(backends) > 0 {
		return backends[f.choice].Addr
	}
	return f.dest.addrPort()
}
