package proxy

import (
	"github.com/tproxyd/tproxyd/internal/sys"
	"golang.org/x/sys/unix"
)

// pipe is a kernel pipe that carries spliced bytes of one direction.
type pipe struct {
	sys.Pipe
	held int // bytes in it
}

const (
	pipeSize  = 1 << 20    // asked for; sys.NewPipe tells what the kernel gave
	pipeLeast = bufferSize // a smaller one carries less per call than copying
	idlePipes = 16         // kept open per worker for the next stream
)

// pipePool lends pipes. It is bounded: with none to be had the relay copies.
type pipePool struct {
	open  func(size int) (sys.Pipe, error)
	max   int
	idle  []*pipe
	lent  int
	dry   bool // the kernel gives no more, until one comes back
	stats *workerStats
}

// get returns an empty pipe, or nil.
func (p *pipePool) get() *pipe {
	if n := len(p.idle); n > 0 {
		q := p.idle[n-1]
		p.idle = p.idle[:n-1]
		p.lent++
		p.publish()
		return q
	}
	if p.dry || p.lent >= p.max {
		return nil
	}
	k, err := p.open(pipeSize)
	if err == nil && k.Size < pipeLeast { // fs.pipe-user-pages-soft is spent
		k.Close()
		err = unix.EPERM
	}
	if err != nil { // or out of descriptors: the copy path needs none
		p.dry = p.lent > 0
		return nil
	}
	p.lent++
	p.publish()
	return &pipe{Pipe: k}
}

// put takes a pipe back. One that still holds bytes, of a flow that was cut,
// cannot be used again.
func (p *pipePool) put(q *pipe) {
	p.lent--
	p.dry = false
	if q.held > 0 || len(p.idle) >= idlePipes {
		q.Close()
	} else {
		p.idle = append(p.idle, q)
	}
	p.publish()
}

// trim closes the idle pipes.
func (p *pipePool) trim() {
	for _, q := range p.idle {
		q.Close()
	}
	clear(p.idle)
	p.idle = p.idle[:0]
	p.publish()
}

func (p *pipePool) publish() {
	p.stats.pipesIdle.Store(int64(len(p.idle)))
	p.stats.pipesLent.Store(int64(p.lent))
}
