package proxy

// bufferSize is what one read of the copy path may bring, and so the most that
// a direction can leave unsent in user memory.
const bufferSize = 64 << 10

// Requests that wait for their upstream are mostly small and many, what a slow
// reader leaves behind is large and rare.
var (
	bufferClasses = [...]int{512, 4 << 10, 16 << 10, bufferSize}
	idleBuffers   = [...]int{256, 64, 16, 8} // kept by a worker
)

// buffer is memory of one of the classes that holds bytes for a leg.
type buffer struct {
	class    int
	data     []byte // of the class's size
	from, to int    // what is still to be written
}

func (b *buffer) rest() []byte { return b.data[b.from:b.to] }

// bufferPool lends memory for bytes that were read but could not be written.
type bufferPool struct {
	idle  [len(bufferClasses)][]*buffer
	stats *workerStats
}

// hold returns a copy of b in memory of the pool; len(b) is at most bufferSize.
func (p *bufferPool) hold(b []byte) *buffer {
	c := 0
	for bufferClasses[c] < len(b) {
		c++
	}
	var m *buffer
	if n := len(p.idle[c]); n > 0 {
		m = p.idle[c][n-1]
		p.idle[c] = p.idle[c][:n-1]
	} else {
		m = &buffer{class: c, data: make([]byte, bufferClasses[c])}
	}
	p.stats.bufferBytes.Add(int64(len(m.data)))
	m.from, m.to = 0, copy(m.data, b)
	return m
}

// release takes memory back.
func (p *bufferPool) release(m *buffer) {
	p.stats.bufferBytes.Add(-int64(len(m.data)))
	if idle := &p.idle[m.class]; len(*idle) < idleBuffers[m.class] {
		*idle = append(*idle, m)
	}
}
