package admission

import (
	"encoding/binary"
	"math"
	"net/netip"
)

// A client is the prefix that a limit counts by, as the two halves of an IPv6
// address. IPv4 is in its mapped form, which no IPv6 client has.
type client struct{ high, low uint64 }

// mapped is the low half of ::ffff:0:0.
const mapped = 0xffff << 32

// masks are the bits of an address that tell one client from another.
type masks struct {
	v4, v6 client
}

func newMasks(bits4, bits6 int) masks {
	return masks{v4: client{low: leading(32 + bits4)}, v6: client{high: leading(bits6), low: leading(bits6 - 64)}}
}

// leading is a word whose first n bits are set.
func leading(n int) uint64 {
	if n <= 0 {
		return 0
	}
	return math.MaxUint64 << (64 - min(n, 64))
}

// client is what a, unmapped, counts as.
func (m *masks) client(a netip.Addr) client {
	if a.Is4() {
		b := a.As4()
		return client{low: (mapped | uint64(binary.BigEndian.Uint32(b[:]))) & m.v4.low}
	}
	b := a.As16()
	return client{
		high: binary.BigEndian.Uint64(b[:8]) & m.v6.high,
		low:  binary.BigEndian.Uint64(b[8:]) & m.v6.low,
	}
}

// limits are what one client may do.
type limits struct {
	flows    int32 // at a time; 0: any number
	interval int64 // nanoseconds of one token; 0: no rate
	burst    int64 // nanoseconds of all tokens: how far a stamp may lie ahead
}

func newLimits(c Config) limits {
	l := limits{flows: int32(c.MaxPerClient)}
	if c.Rate > 0 {
		burst := c.Burst
		if burst == 0 {
			burst = max(1, int(math.Ceil(c.Rate)))
		}
		l.interval = max(1, int64(math.Round(1e9/c.Rate)))
		l.burst = int64(burst) * l.interval
	}
	return l
}

func (l *limits) any() bool { return l.flows > 0 || l.interval > 0 }

// admit is GCRA: stamp is when the bucket is full again, and each flow puts it
// off by one interval. It returns the new stamp, and false if the flow comes too
// soon.
func (l *limits) admit(stamp, now int64) (int64, bool) {
	if l.interval == 0 {
		return stamp, true
	}
	// A stamp that lies further ahead was made by the limits before a reload.
	stamp = min(max(stamp, now), now+l.burst)
	if stamp+l.interval > now+l.burst {
		return stamp, false
	}
	return stamp + l.interval, true
}
