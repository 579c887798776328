package mirror

import (
	"context"
	"errors"
	"time"

	"github.com/tproxyd/tproxyd/internal/packet"
	"github.com/tproxyd/tproxyd/zcsend"
)

// batch is how many frames go to the kernel in one call.
const batch = 64

// port sends frames out of an interface as they are.
type port struct {
	sender   *zcsend.Sender
	count    *counters
	frames   []zcsend.Frame
	patience time.Duration
}

func openPort(name string, count *counters) (output, error) {
	s, err := zcsend.Open(zcsend.Config{Interface: name, Method: zcsend.GSO, Batch: batch})
	if err != nil {
		return nil, err
	}
	return &port{sender: s, count: count, frames: make([]zcsend.Frame, 0, batch), patience: patience}, nil
}

// takes is true if the segments fit. The kernel cuts for a device that does not.
func (p *port) takes(data []byte, segment int) bool {
	l, ok := packet.Parse(data)
	return ok && l.Payload > 0 && !l.Fragment && !l.Truncated && l.Payload-l.L3+segment <= p.sender.MTU()
}

func (p *port) put(data []byte, segment int, _ bool) {
	f := zcsend.Frame{Data: data, SegmentSize: segment}
	if segment == 0 && len(data) > p.sender.MTU()+packet.EthernetHeader {
		// Alone, so that it is clear whose the refusal is. The sender asks
		// whether the MTU is another now.
		p.flush()
		p.frames = append(p.frames, f)
		p.flush()
		return
	}
	p.frames = append(p.frames, f)
	if len(p.frames) == batch {
		p.flush()
	}
}

func (p *port) flush() {
	if len(p.frames) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), p.patience)
	before := p.sender.Stats().Bytes
	n, err := p.sender.Send(ctx, p.frames)
	cancel()
	p.count.sent(n, int(p.sender.Stats().Bytes-before))
	p.count.drop(reasonOf(err), len(p.frames)-n)
	// Who has been waited for in vain is not waited for again, until it takes
	// something: the ring would fill up meanwhile.
	if p.patience = patience; n == 0 && reasonOf(err) == Overload {
		p.patience = 0
	}
	clear(p.frames)
	p.frames = p.frames[:0]
}

func reasonOf(err error) Reason {
	switch {
	case errors.Is(err, zcsend.ErrLinkDown):
		return LinkDown
	case errors.Is(err, zcsend.ErrTooLong):
		return TooLong
	case errors.Is(err, zcsend.ErrFormat):
		return Format
	case errors.Is(err, zcsend.ErrNoRoom), errors.Is(err, context.DeadlineExceeded):
		return Overload
	}
	return Failed
}

func (p *port) close() error { return p.sender.Close() }
