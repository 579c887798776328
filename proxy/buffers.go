package proxy

import "github.com/tproxyd/tproxyd/internal/proxyproto"

// bufferSize is what one read of the copy path may bring, and so the most that
// a direction can leave unsent in user memory.
const bufferSize = 64 << 10

// greetingSize is how much of a client is kept until its flow has a backend: the
// longest hello that is read, behind the longest PROXY header. One that the
// backend gets comes on top.
const greetingSize = MaxHello + proxyproto.MaxHeader

// Requests that wait for their upstream are mostly small and many, what a slow
// reader leaves behind is large and rare.
var (
	bufferClasses = [...]int{512, 4 << 10, 16 << 10, bufferSize, greetingSize + proxyproto.MaxHeader}
	idleBuffers   = [...]int{256, 64, 16, 8, 2} // kept by a worker
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
	m := p.take(len(b))
	m.to = copy(m.data, b)
	return m
}

// join returns b, or other memory, with more behind what it holds; together
// they are no more than the largest class. b may be nil.
func (p *bufferPool) join(b *buffer, more []byte) *buffer {
	if b == nil {
		return p.hold(more)
	}
	if len(more) > len(b.data)-b.to {
		m := p.take(len(b.rest()) + len(more))
		m.to = copy(m.data, b.rest())
		p.release(b)
		b = m
	}
	b.to += copy(b.data[b.to:], more)
	return b
}

// take returns empty memory with room for n bytes.
func (p *bufferPool) take(n int) *buffer {
	c := 0
	for bufferClasses[c] < n {
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
	m.from, m.to = 0, 0
	return m
}

// consume drops the first n bytes that d holds.
func (w *worker) consume(d *direction, n int) {
	if d.buf.from += n; len(d.buf.rest()) == 0 {
		w.bufs.release(d.buf)
		d.buf = nil
	}
}

// release takes memory back.
func (p *bufferPool) release(m *buffer) {
	p.stats.bufferBytes.Add(-int64(len(m.data)))
	if idle := &p.idle[m.class]; len(*idle) < idleBuffers[m.class] {
		*idle = append(*idle, m)
	}
}
