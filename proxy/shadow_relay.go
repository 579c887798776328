package proxy

import (
	"github.com/tproxyd/tproxyd/internal/sys"
	"golang.org/x/sys/unix"
)

// startTCP gives f its copies and what was read before it had an upstream.
func (w *shadowWorker) startTCP(f *flow) {
	w.start(&f.head)
	for side := range f.dirs {
		if held := f.dirs[side].held(); f.shadows != nil && held != nil {
			w.read(&f.head, side, held)
		}
	}
}

// read copies b, which was read from leg side of h into user memory.
func (w *shadowWorker) read(h *head, side int, b []byte) {
	if s := h.shadows.copies[client]; s != nil && side == upstream && s.compare {
		s.real.add(b)
	}
	if s := h.shadows.copies[side]; s != nil {
		w.add(s, b)
	}
}

// add has the shadow get b.
func (w *shadowWorker) add(s *shadow, b []byte) {
	if s.writable && !s.pending() {
		n, e := sys.Send(int(s.fd), b, false)
		if e != 0 {
			n = 0
			if !w.refused(s, e) {
				return
			}
		}
		s.stats.bytes[0].Add(uint64(n))
		if b = b[n:]; len(b) == 0 {
			return
		}
	}
	held := 0
	if s.buf != nil {
		held = len(s.buf.rest())
	}
	if s.pipe == nil && held+len(b) <= bufferSize {
		s.buf = w.bufs.join(s.buf, b)
		return
	}
	if !w.needPipe(s) {
		return
	}
	n, e := sys.Write(s.pipe.W, b)
	if e == 0 {
		s.pipe.held += n
	}
	if e != 0 || n < len(b) {
		w.close(s, shadowOverflow)
	}
}

// tee copies the n bytes that were just spliced from leg side of f: all there
// is in p, of which nothing was passed on yet. That the shadow's pipe takes
// less is the end of the copy, not a hole in it.
func (w *shadowWorker) tee(f *flow, side int, p *pipe, n int) {
	s := f.shadows.copies[side]
	if s == nil || !w.needPipe(s) {
		return
	}
	m, e := sys.Tee(p.R, s.pipe.W, n)
	if e == 0 {
		s.pipe.held += m
	}
	if e != 0 || m < n {
		w.close(s, shadowOverflow)
		return
	}
	w.flush(s)
}

// needPipe lends s a pipe, or gives it up. Shadows have no more than half of
// the pipes, so that flows have theirs.
func (w *shadowWorker) needPipe(s *shadow) bool {
	if s.pipe == nil && w.pipes.lent < w.pipes.max/2 {
		s.pipe = w.pipes.get()
	}
	if s.pipe == nil {
		w.close(s, shadowResources)
		return false
	}
	return true
}

// refused handles an error of writing to s, and reports whether s lives on.
func (w *shadowWorker) refused(s *shadow, e sys.Errno) bool {
	if e == unix.EAGAIN {
		s.writable = false
		return true
	}
	w.close(s, shadowFailure(e, s.connected))
	return false
}

// flush sends what the shadow takes of what it has yet to get, and FIN behind
// the end.
func (w *shadowWorker) flush(s *shadow) {
	for s.writable && s.pending() {
		var n int
		var e sys.Errno
		if s.buf != nil {
			n, e = sys.Send(int(s.fd), s.buf.rest(), false)
		} else {
			n, e = sys.Splice(s.pipe.R, int(s.fd), s.pipe.held)
		}
		switch {
		case e != 0:
			if !w.refused(s, e) {
				return
			}
			continue
		case s.buf == nil:
			s.pipe.held -= n
		default:
			if s.buf.from += n; len(s.buf.rest()) == 0 {
				w.bufs.release(s.buf)
				s.buf = nil
			}
		}
		s.stats.bytes[0].Add(uint64(n))
	}
	if s.pending() {
		return
	}
	if s.pipe != nil {
		w.putPipe(s)
	}
	if s.ended && !s.shut && s.connected {
		s.shut = true
		sys.ShutdownWrite(int(s.fd))
	}
	w.settle(s)
}

// end sends FIN behind the last byte of the direction side of f.
func (w *shadowWorker) end(f *flow, side int) {
	if s := f.shadows.copies[side]; s != nil {
		s.ended = true
		w.flush(s)
	}
}

// leave lets the copies of a flow that has ended finish, or cuts them if it
// was cut itself.
func (w *shadowWorker) leave(o *shadows, cut bool, answered uint64) {
	for _, s := range o.copies {
		switch {
		case s == nil:
		case cut:
			w.close(s, shadowCut)
		default:
			s.detached = true
			if s.side == client {
				s.expected = answered
			}
			if s.connected {
				w.await(s)
			}
			w.settle(s)
		}
	}
}

// settle closes s if that was all.
func (w *shadowWorker) settle(s *shadow) {
	if s.detached && (s.shut && s.fin || s.datagrams && s.received >= s.expected) {
		w.close(s, shadowOK)
	}
}

// listen reads what the shadow answers, and throws it away.
func (w *shadowWorker) listen(s *shadow) {
	for range shadowRounds {
		var n int
		var e sys.Errno
		if s.compare || s.datagrams {
			n, e = sys.Recv(int(s.fd), w.buf[:])
		} else {
			n, e = sys.Discard(int(s.fd))
		}
		switch {
		case e == unix.EAGAIN:
			return
		case e != 0:
			w.close(s, shadowFailure(e, s.connected))
			return
		case n == 0 && !s.datagrams:
			s.fin = true
			w.settle(s)
			return
		}
		s.received++
		s.stats.bytes[1].Add(uint64(n))
		if s.compare {
			s.answers.add(w.buf[:n])
		}
		if s.datagrams && s.detached {
			if w.settle(s); !s.live {
				return
			}
		}
	}
	if !s.more {
		s.more = true
		w.ready = append(w.ready, s)
	}
}

// send copies a datagram of leg side of f, or a run of them.
func (u *udpWorker) shadowDatagrams(f *udpFlow, side int, data []byte, segment int) {
	if segment <= 0 || segment > len(data) {
		segment = len(data)
	}
	if s := f.shadows.copies[client]; s != nil && side == upstream && s.compare {
		for rest := data; ; {
			n := min(segment, len(rest))
			s.real.add(rest[:n])
			if rest = rest[n:]; len(rest) == 0 {
				break
			}
		}
	}
	s := f.shadows.copies[side]
	if s == nil {
		return
	}
	if u.proxy.gso && len(data) > segment {
		u.one.Reset()
		u.one.Add(nil, segment, data)
		if _, e := u.one.Send(int(s.fd), 0); e == 0 {
			s.stats.bytes[0].Add(uint64(len(data)))
			return
		}
	}
	for {
		n := min(segment, len(data))
		if _, e := sys.Send(int(s.fd), data[:n], false); e != 0 {
			if e == unix.EAGAIN {
				u.shadow.close(s, shadowOverflow)
			} else {
				u.shadow.close(s, shadowFailure(e, true))
			}
			return
		}
		s.stats.bytes[0].Add(uint64(n))
		if data = data[n:]; len(data) == 0 {
			return
		}
	}
}
