package proxy

import (
	"github.com/tproxyd/tproxyd/internal/sys"
	"golang.org/x/sys/unix"
)

const (
	turnBudget  = 512 << 10 // bytes of one direction before other flows have their turn
	streamRead  = 32 << 10  // a read of so much speaks for a stream
	streamReads = 2         // so many of them in a row make it one
	thinSplice  = 8 << 10   // a wake-up that brings less speaks against
	thinSplices = 4
)

// relay moves what can be moved in both directions of f.
func (w *worker) relay(f *flow) {
	for side := range f.dirs {
		if !f.dirs[side].closed {
			w.pump(f, side)
		}
		if f.state != relaying {
			return
		}
	}
}

// pump moves bytes from leg side to the other until the source is dry, the
// other is full or the budget is spent.
func (w *worker) pump(f *flow, side int) {
	d, from := &f.dirs[side], &f.legs[side]
	for budget := turnBudget; ; {
		if d.pending() {
			if e := w.write(f, side); e != 0 {
				if e != unix.EAGAIN {
					w.cannotWrite(f, side)
				}
				return
			}
		}
		if d.eof {
			w.passFIN(f, side)
			return
		}
		if !from.readable {
			w.idlePipe(d)
			return
		}
		if budget <= 0 {
			w.again(f)
			return
		}
		n, e := w.read(f, side)
		switch {
		case e == unix.EAGAIN:
			from.readable = false
		case e == errForged:
			w.end(f, ProxyHeaderRefused)
			return
		case e != 0:
			w.lostLeg(f, side, e)
			return
		case n == 0:
			d.eof = true
		default:
			budget -= n
		}
	}
}

// read takes bytes from leg side, by splice into a pipe if the direction is a
// stream, otherwise into the worker's buffer and from there straight to the
// other leg. What that leg does not take is kept in d.
func (w *worker) read(f *flow, side int) (int, sys.Errno) {
	d, from := &f.dirs[side], &f.legs[side]
	if d.stream && !from.urgent {
		if d.pipe == nil {
			d.pipe = w.pipes.get()
		}
		if d.pipe != nil {
			return w.readSplice(f, side)
		}
	}
	n, e := sys.Recv(int(from.fd), w.buf[:])
	if e != 0 || n == 0 {
		return 0, e
	}
	if f.unproven && side == client && f.forged(w.buf[:n]) {
		return 0, errForged
	}
	w.count(f, side, pathCopy, n)
	if f.shadows != nil {
		w.shadow.read(&f.head, side, w.buf[:n])
	}
	// A short read has emptied the queue, and what comes later is a new edge:
	// there is no need to ask for EAGAIN. Not so at the end of the stream,
	// where no edge follows, and at an urgent mark, where reads stop short.
	if n < len(w.buf) && !from.ending && !from.urgent {
		from.readable = false
	}
	switch {
	case d.stream: // but there was no pipe to be had
	case n < streamRead:
		d.full = 0
	default:
		d.full++
		if d.full >= streamReads && !f.compared(side) {
			d.stream, d.full = true, 0
		}
	}
	// If FIN was there before the read, a short read has taken the last byte,
	// and the FIN that we pass on right away can go with it in one segment.
	last := n < len(w.buf) && from.fin && !from.urgent && !from.failed
	d.eof = last
	// An error of send comes again when what is held is written.
	if sent, _ := w.send(&f.legs[1-side], w.buf[:n], last); sent < n {
		d.buf = w.bufs.hold(w.buf[sent:n])
	}
	return n, 0
}

// readSplice fills d's pipe, which is empty.
func (w *worker) readSplice(f *flow, side int) (int, sys.Errno) {
	d, from := &f.dirs[side], &f.legs[side]
	most := d.pipe.Size
	if f.shadows != nil {
		most /= shadowShare
	}
	n, e := sys.Splice(int(from.fd), d.pipe.W, most)
	if e == unix.EAGAIN {
		return 0, unix.EAGAIN
	}
	if e == 0 && n > 0 {
		d.pipe.held = n
		w.count(f, side, pathSplice, n)
		if f.shadows != nil {
			w.shadow.tee(f, side, d.pipe, n)
		}
		if n >= thinSplice {
			d.full = 0
		} else if d.full++; d.full >= thinSplices {
			d.stream, d.full = false, 0
		}
		return n, 0
	}
	// Copy, for good. EINVAL: this socket cannot be spliced (sockmap and some
	// security modules replace its operations). Otherwise this should be the
	// end, but at an urgent mark of which no event has told yet splice says so
	// as well, and only recv gets past it (tcp_read_sock).
	if e != 0 && e != unix.EINVAL {
		from.take(e)
	}
	from.urgent = true
	return w.read(f, side)
}

// write passes on what the direction side holds. It returns EAGAIN if some of
// it has to wait.
func (w *worker) write(f *flow, side int) sys.Errno {
	d, to := &f.dirs[side], &f.legs[1-side]
	if !to.writable {
		return unix.EAGAIN
	}
	f.lastActive = w.loop.Now() // there is room again: the reader lives
	for d.buf != nil {
		n, e := w.send(to, d.buf.rest(), false)
		if e != 0 {
			return e
		}
		w.consume(d, n)
	}
	for d.pipe != nil && d.pipe.held > 0 {
		w.noDelay(to)
		n, e := sys.Splice(d.pipe.R, int(to.fd), d.pipe.held)
		if e == unix.EPIPE {
			// The errno proper may have met an earlier part of this call or of
			// the last one, which answers with what it did write.
			e = unix.ECONNRESET
		}
		if e != 0 {
			to.refused(e)
			return e
		}
		d.pipe.held -= n
	}
	return 0
}

// send writes b to the leg; EAGAIN means that it took none. With more set FIN
// must follow at once.
func (w *worker) send(to *leg, b []byte, more bool) (int, sys.Errno) {
	if !to.writable {
		return 0, unix.EAGAIN
	}
	w.noDelay(to)
	n, e := sys.Send(int(to.fd), b, more)
	if e != 0 {
		to.refused(e)
		return 0, e
	}
	return n, 0
}

// refused notes why a write to l failed.
func (l *leg) refused(e sys.Errno) {
	if e == unix.EAGAIN {
		l.writable = false
	} else {
		l.take(e)
	}
}

// take notes the errno e of l, which the kernel tells only once.
func (l *leg) take(e sys.Errno) {
	l.failed = true
	if l.fault == 0 {
		l.fault = uint16(e)
	}
}

// noDelay switches Nagle's algorithm off before the second write. It never
// holds back the first, and many flows have only one.
func (w *worker) noDelay(to *leg) {
	if to.wrote && !to.nodelay {
		sys.SetInt(int(to.fd), unix.SOL_TCP, unix.TCP_NODELAY, 1)
		to.nodelay = true
	}
	to.wrote = true
}

// idlePipe gives the pipe of a direction that has run dry back to the others.
func (w *worker) idlePipe(d *direction) {
	if d.pipe != nil {
		w.pipes.put(d.pipe)
		d.pipe = nil
	}
}

// count books n bytes read from leg side.
func (w *worker) count(f *flow, side, path, n int) {
	f.lastActive = w.loop.Now()
	f.part.shard.bytes[side][path].Add(uint64(n))
	if path == pathSplice {
		f.dirs[side].moved += uint64(n)
	} else {
		f.dirs[side].copied += uint64(n)
	}
}

// passFIN sends FIN behind the last byte of the direction side. If the other
// direction has ended too, closing does it.
func (w *worker) passFIN(f *flow, side int) {
	if from := &f.legs[side]; from.failed {
		e := sys.Errno(from.fault)
		if e == 0 {
			// A read answers with the end rather than with the error of a RST
			// behind it (tcp_recvmsg).
			e = sys.SocketError(int(from.fd))
		} else if e != unix.EPIPE {
			// Not an end, but a reset whose error was taken. EPIPE is the error
			// of a RST behind a FIN (tcp_reset).
			f.dirs[side].eof = false
		}
		if e != 0 {
			w.lostLeg(f, side, e)
			return
		}
	}
	f.lastActive = w.loop.Now()
	f.dirs[side].closed = true
	w.idlePipe(&f.dirs[side])
	if f.shadows != nil {
		w.shadow.end(f, side)
	}
	if f.dirs[1-side].closed {
		if f.closer == client {
			w.end(f, ClientClose)
		} else {
			w.end(f, UpstreamClose)
		}
		return
	}
	f.closer = uint8(side)
	if e := sys.ShutdownWrite(int(f.legs[1-side].fd)); e != 0 {
		w.cannotWrite(f, side)
		return
	}
	w.loop.Schedule(&f.timer, w.flowDeadline(f))
}
