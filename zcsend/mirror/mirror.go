package mirror

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"github.com/tproxyd/tproxyd/ringcap"
	"github.com/tproxyd/tproxyd/ringcap/gso"
	"github.com/tproxyd/tproxyd/ringcap/pcapng"
	"github.com/tproxyd/tproxyd/zcsend/encap"
)

// Pick chooses frames; the Snap of the Tag, if it is not 0, cuts one shorter.
type Pick func(ringcap.Packet) (pcapng.Tag, bool)

// Config of a Mirror. Either Interface or Collector says where frames go.
type Config struct {
	Name string

	Interface string // a port of this host
	Collector netip.Addr
	Kind      encap.Kind
	ID        uint32 // see encap.Config
	Index     uint32
	Port      uint16

	Snap int   // bytes of a frame that are sent, 0 for all
	Rate int64 // bits a second, 0 without limit
	Pick Pick  // nil takes all frames of the ring
}

// output is where frames go. It counts each frame that it was given once.
type output interface {
	// takes says whether a super-frame can be given as it is.
	takes(data []byte, segment int) bool
	// put queues a frame, which has to stay as it is until flush. cut says that
	// it was cut to a snap length.
	put(data []byte, segment int, cut bool)
	// flush sends what is queued.
	flush()
	close() error
}

// Mirror sends frames of any number of rings to one place.
type Mirror struct {
	cfg Config
	counters

	mu      sync.Mutex // of what follows
	out     output
	bucket  bucket
	cutter  gso.Cutter
	scratch []byte // pieces of super-frames that are queued
	rings   map[*ringcap.Ring]struct{}
	lost    uint64 // what rings dropped that are not mirrored any more
	closed  bool
}

// scratchSize is several times the longest piece.
const scratchSize = 1 << 20

// patience is how long an output that takes nothing is waited for. The rings
// hold what comes in the meantime.
const patience = 20 * time.Millisecond

// New makes a mirror in the network namespace of the calling thread. It needs
// CAP_NET_RAW.
func New(cfg Config) (*Mirror, error) {
	m := &Mirror{cfg: cfg, rings: make(map[*ringcap.Ring]struct{})}
	if cfg.Rate > 0 {
		m.bucket = newBucket(cfg.Rate)
	}
	var err error
	switch {
	case (cfg.Interface == "") == !cfg.Collector.IsValid():
		err = errors.New("give an interface or a collector")
	case cfg.Interface != "":
		m.out, err = openPort(cfg.Interface, &m.counters)
	default:
		m.out, err = openRemote(&cfg, &m.counters)
	}
	if err != nil {
		return nil, fmt.Errorf("open mirror %q: %w", cfg.Name, err)
	}
	return m, nil
}

// Name is the mirror's.
func (m *Mirror) Name() string { return m.cfg.Name }

// Exclusion is an expression for ringcap/filter that is true for what a mirror
// with this configuration sends, and for what its collector says to that. It has
// to be kept out of the rings of all mirrors; it is empty for a port, whose
// interface must not be mirrored.
func (c Config) Exclusion() (string, error) {
	if !c.Collector.IsValid() {
		return "", nil
	}
	source, err := sourceFor(c.Collector)
	if err != nil {
		return "", fmt.Errorf("find way to collector of mirror %q: %w", c.Name, err)
	}
	protocols := "ip proto 47 or ip proto 1"
	if c.Kind == encap.VXLAN {
		// Not by the port: later fragments have none.
		protocols = "ip proto 17 or ip proto 1"
	}
	if c.Collector.Is6() {
		// Fragments are of protocol 44, whatever is in them.
		protocols = "ip6 proto 47 or ip6 proto 58 or ip6 proto 44"
		if c.Kind == encap.VXLAN {
			protocols = "ip6 proto 17 or ip6 proto 58 or ip6 proto 44"
		}
	}
	return fmt.Sprintf("(host %s and host %s and (%s))", source, c.Collector, protocols), nil
}

// Run mirrors a ring until ctx ends and what it had captured by then has been
// sent or dropped. The ring is the caller's to close, after Run.
func (m *Mirror) Run(ctx context.Context, r *ringcap.Ring) error {
	m.mu.Lock()
	m.rings[r] = struct{}{}
	m.mu.Unlock()
	defer m.forget(r)
	for b, err := range r.Blocks(ctx) {
		if b == nil {
			return fmt.Errorf("mirror %s: %w", r.Interface(), err)
		}
		// A block that is wrong somewhere is good up to there.
		m.Consume(b)
	}
	return nil
}

func (m *Mirror) forget(r *ringcap.Ring) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.rings, r)
	if s, err := r.Stats(); err == nil {
		m.lost += s.Drops
	}
}

// Consume mirrors the frames of a block. It writes to the block's memory, so
// that nobody may read it at the same time or after. Drops of the block's ring
// are counted only of rings that Run has.
func (m *Mirror) Consume(b *ringcap.Block) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return
	}
	for p := range b.Packets() {
		m.one(p)
	}
	m.flush()
}

func (m *Mirror) one(p ringcap.Packet) {
	snap := m.cfg.Snap
	if m.cfg.Pick != nil {
		tag, ok := m.cfg.Pick(p)
		if !ok {
			return
		}
		if tag.Snap > 0 && (snap == 0 || tag.Snap < snap) {
			snap = tag.Snap
		}
	}
	m.seen.Add(1)
	captured, length, nanos := len(p.Data()), p.Len(), p.Nanos()
	data, segment, ok := whole(p)
	switch {
	case !ok:
		m.drop(Format, 1)
	case captured < length && (segment > 0 || snap == 0 || snap > len(data)):
		m.drop(TooLong, 1) // for the ring
	case !m.bucket.take(cost(len(data), segment, snap), nanos):
		m.drop(Rate, 1)
	case segment > 0 && (snap > 0 || !m.out.takes(data, segment)):
		m.pieces(data, segment, snap)
	default:
		m.put(data, segment, snap)
	}
}

// cost is how many bytes a frame will be, about: pieces have headers each.
func cost(n, segment, snap int) int {
	switch {
	case snap == 0:
		return n
	case segment == 0:
		return min(n, snap)
	}
	return min(n, snap*(n/segment+1))
}

func (m *Mirror) put(data []byte, segment, snap int) {
	if snap > 0 && snap < len(data) {
		m.out.put(data[:snap], 0, true)
		return
	}
	m.out.put(data, segment, false)
}

// pieces cuts a super-frame. Its pieces have to be kept until they are sent.
func (m *Mirror) pieces(data []byte, segment, snap int) {
	if m.scratch == nil {
		m.scratch = make([]byte, 0, scratchSize)
	}
	n := 0
	for piece := range m.cutter.Segments(data, segment) {
		if n++; n > 1 {
			m.cut.Add(1)
		}
		if len(piece) > scratchSize {
			m.drop(TooLong, 1)
			continue
		}
		if len(m.scratch)+len(piece) > scratchSize {
			m.flush()
		}
		at := len(m.scratch)
		m.scratch = append(m.scratch, piece...)
		m.put(m.scratch[at:], 0, snap)
	}
}

func (m *Mirror) flush() {
	m.out.flush()
	m.scratch = m.scratch[:0]
}

// Stats returns what has happened so far. Anybody may call it until Close, as
// long as the rings that Run has are open.
func (m *Mirror) Stats() Stats {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.stats()
	s.Dropped[RingFull] = m.lost
	for r := range m.rings {
		if rs, err := r.Stats(); err == nil {
			s.Dropped[RingFull] += rs.Drops
		}
	}
	return s
}

// Close gives the output up. No Run may be under way.
func (m *Mirror) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return nil
	}
	m.closed = true
	return m.out.close()
}
