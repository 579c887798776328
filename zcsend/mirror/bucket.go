package mirror

// fill is in how many seconds a bucket fills, and leastBurst what it holds at
// least: a few super-frames.
const (
	fill       = 0.05
	leastBurst = 256 << 10
)

// bucket limits bytes in time, by the times at which the frames were captured.
// The zero value limits nothing.
type bucket struct {
	rate, size float64 // bytes a second, bytes
	has        float64
	last       int64 // nanoseconds
}

// newBucket takes bits a second.
func newBucket(rate int64) bucket {
	b := bucket{rate: float64(rate) / 8}
	b.size = max(leastBurst, b.rate*fill)
	b.has = b.size
	return b
}

// take says whether n bytes may pass at a time. A time before the last, as
// frames of several rings have, brings nothing and takes nothing away.
func (b *bucket) take(n int, nanos int64) bool {
	if b.rate == 0 {
		return true
	}
	if nanos > b.last {
		b.has = min(b.size, b.has+float64(nanos-b.last)*b.rate/1e9)
		b.last = nanos
	}
	if b.has < float64(n) {
		return false
	}
	b.has -= float64(n)
	return true
}
