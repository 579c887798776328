package tap

import (
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/tproxyd/tproxyd/internal/packet"
	"github.com/tproxyd/tproxyd/internal/tpacket"
)

// flow is a Flow that is known. What the proxy tells is replaced as a whole, so
// that sinks read it without a lock.
type flow struct {
	id    uint64
	info  atomic.Pointer[Flow]
	began int64        // nanoseconds since 1970
	ended atomic.Int64 // 0 while it lives

	// Of the registry, under its lock.
	legs    []*leg
	in, out uint64 // relayed
	reason  string
	epoch   uint64 // of the rings when it began
}

// Sides of a flow. They are added to twice the number of an interface.
const (
	client = iota
	upstream
)

var sideNames = [2]string{"client", "upstream"}

// leg is a flow between two addresses. A 4-tuple is used again: then the new
// leg stands before the old one until that is forgotten.
type leg struct {
	flow *flow
	side uint8
	key  packet.Ends
	// clientLow says that the end towards the client, the proxy on the
	// upstream leg, is the key's lower one.
	clientLow bool
	// twin is the upstream leg if both have the same ends, as a transparent
	// proxy without translation makes them.
	twin *leg

	prev  atomic.Pointer[leg] // stored under the registry's lock
	begun atomic.Int64        // time of the first SYN, 0 if none was seen

	mu   sync.Mutex
	in   stream // from the client's end
	out  stream
	seen bool
}

// at is the leg that a packet of a time belongs to.
func (l *leg) at(ns int64) *leg {
	for l != nil {
		prev := l.prev.Load()
		if prev == nil || ns >= l.boundary(prev) {
			return l
		}
		l = prev
	}
	return nil
}

// boundary is when the 4-tuple became this leg's.
func (l *leg) boundary(prev *leg) int64 {
	if begun := l.begun.Load(); begun != 0 {
		return begun
	}
	return prev.flow.ended.Load()
}

// open notes when a SYN of the leg came. One that is older than the end of the
// flow before was that one's.
func (l *leg) open(s *segment, ns int64) {
	if s.key.Protocol != unix.IPPROTO_TCP || s.flags&(flagSYN|flagACK) != flagSYN {
		return
	}
	l.begun.CompareAndSwap(0, ns)
}

// count adds a packet to what was seen of the leg.
func (l *leg) count(s *segment) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.seen = true
	d := &l.out
	if s.sourceLow == l.clientLow {
		d = &l.in
	}
	if s.key.Protocol == unix.IPPROTO_TCP {
		d.add(s.seq, s.payload, s.flags&flagSYN != 0)
		return
	}
	d.bytes += uint64(s.payload)
	d.whole = true
}

// sideOf picks the leg of two with the same ends. What comes from the client's
// end is on the client's leg if it comes in, and on the other if it goes out.
func (l *leg) sideOf(s *segment, f tpacket.Frame) *leg {
	if l == nil || l.twin == nil {
		return l
	}
	if (s.sourceLow == l.clientLow) == f.Outgoing() {
		return l.twin
	}
	return l
}
