package proxy

import (
	"github.com/cespare/xxhash/v2"
	"github.com/tproxyd/tproxyd/internal/eventloop"
	"github.com/tproxyd/tproxyd/internal/sys"
	"golang.org/x/sys/unix"
)

const (
	shadowTags   = 1 << 29      // tags from here to udpTags are shadows; those of TCP flows are below
	shadowTimers = udpListeners // slots of timers from here on are shadows

	// shadowShare bounds what is spliced at a time from a flow that is copied: the
	// shadow's pipe has room for so many pieces.
	shadowShare = 2

	shadowRounds = 8 // reads of one shadow before others have their turn
)

// shadowWorker is the part of a worker that serves shadows.
type shadowWorker struct {
	*worker
	all     []*shadow // by number
	free    []uint32
	ready   []*shadow // have more to read than their turn allowed
	scratch []*shadow
}

// start gives a flow that has just got its upstream the copies that its
// service asks for.
func (w *shadowWorker) start(h *head) {
	c := h.part.svc.Shadow
	if !c.takes(h.id) {
		return
	}
	o := &shadows{}
	for side := range o.copies {
		if c.Direction.has(side) {
			o.copies[side] = w.open(h, o, side)
		}
	}
	if *o != (shadows{}) {
		h.shadows = o
	}
}

// open connects a copy of direction side of h. If that fails it is counted,
// and there is none.
func (w *shadowWorker) open(h *head, o *shadows, side int) *shadow {
	stats, p := &h.part.shard.shadow, w.proxy
	if p.shadows.Add(1) > p.maxShadows.Load() {
		p.shadows.Add(-1)
		stats.results[shadowLimit].Add(1)
		return nil
	}
	s := w.take()
	stats.active.Add(1)
	s.owner, s.svc, s.stats, s.side = o, h.part.svc, stats, uint8(side)
	s.datagrams = s.svc.Protocol == UDP
	if s.compare = s.svc.Shadow.Compare && side == client; s.compare && !s.datagrams {
		s.answers.stream, s.real.stream = xxhash.New(), xxhash.New()
	}
	if e := w.connect(s); e != 0 {
		w.close(s, shadowFailure(e, false))
		return nil
	}
	return s
}

// take returns an unused shadow.
func (w *shadowWorker) take() *shadow {
	if len(w.free) == 0 {
		n := uint32(len(w.all))
		w.all = append(w.all, &shadow{timer: eventloop.Timer{Slot: shadowTimers + n}})
		w.free = append(w.free, n)
	}
	s := w.all[w.free[len(w.free)-1]]
	w.free = w.free[:len(w.free)-1]
	s.live, s.fd = true, -1
	return s
}

// connect begins the connection of s, from an address of this host.
func (w *shadowWorker) connect(s *shadow) sys.Errno {
	target := s.svc.Shadow.Address
	open := sys.TCPSocket
	events := uint32(unix.EPOLLIN | unix.EPOLLOUT | unix.EPOLLRDHUP | unix.EPOLLET&0xffffffff)
	if s.datagrams {
		open, events = sys.UDPSocket, udpEvents
	}
	fd, e := open(sys.Family(target.Addr()))
	if e != 0 {
		return e
	}
	s.fd = int32(fd)
	if e := w.setMark(s.svc, fd); e != 0 {
		return e
	}
	w.addr.Set(target)
	if e := sys.Connect(fd, &w.addr); e != 0 && e != unix.EINPROGRESS {
		return e
	}
	number := s.timer.Slot - shadowTimers
	if w.loop.Add(fd, events, eventloop.Tag{Slot: shadowTags + number, Gen: s.gen}) != nil {
		return unix.ENOMEM
	}
	if s.datagrams {
		s.connected, s.writable = true, true
		return 0
	}
	sys.SetInt(fd, unix.SOL_TCP, unix.TCP_NODELAY, 1)
	w.loop.Schedule(&s.timer, w.loop.Now()+int64(s.svc.ConnectTimeout))
	return 0
}

// shadowFailure names an error of a shadow's socket.
func shadowFailure(e sys.Errno, connected bool) shadowResult {
	switch e {
	case unix.EMFILE, unix.ENFILE, unix.ENOBUFS, unix.ENOMEM:
		return shadowResources
	case unix.ECONNREFUSED:
		return shadowRefused
	}
	switch {
	case connected:
		return shadowReset
	case e == unix.ECONNRESET:
		return shadowRefused
	}
	return shadowUnreachable
}

// event handles events of a shadow's socket.
func (w *shadowWorker) event(tag eventloop.Tag, events uint32) {
	s := w.all[tag.Slot-shadowTags]
	if s.gen != tag.Gen || !s.live {
		return // closed earlier in this batch
	}
	if events&unix.EPOLLERR != 0 {
		if e := sys.SocketError(int(s.fd)); e != 0 {
			w.close(s, shadowFailure(e, s.connected))
			return
		}
	}
	if events&unix.EPOLLOUT != 0 {
		if !s.connected {
			s.connected = true
			w.loop.Cancel(&s.timer)
			if s.detached {
				w.await(s)
			}
		}
		s.writable = true
		w.flush(s)
	}
	if s.live && s.connected && events&^unix.EPOLLOUT != 0 {
		w.listen(s)
	}
}

// expired handles the timer of s: it did not connect in time, or did not end.
func (w *shadowWorker) expired(s *shadow) {
	switch {
	case !s.connected:
		w.close(s, shadowUnreachable)
	case s.datagrams:
		w.close(s, shadowOK) // datagrams have no end
	default:
		w.close(s, shadowTimeout)
	}
}

// turn goes on with shadows that were not read to the end, and reports whether
// there is more of that.
func (w *shadowWorker) turn() bool {
	if len(w.ready) == 0 {
		return false
	}
	w.ready, w.scratch = w.scratch[:0], w.ready
	for _, s := range w.scratch {
		// One that was closed meanwhile has lost the mark.
		if s.more {
			s.more = false
			w.listen(s)
		}
	}
	return len(w.ready) > 0
}

// await gives s, whose flow has ended, its time to end too.
func (w *shadowWorker) await(s *shadow) {
	w.loop.Schedule(&s.timer, w.loop.Now()+int64(s.svc.Shadow.Linger))
}

// reload gives up what services no longer asks for. Copies for a service that
// is gone go on as long as its flows.
func (w *shadowWorker) reload(services []*service) {
	now := map[*serviceStats]*service{}
	for _, svc := range services {
		now[svc.stats] = svc
	}
	for _, s := range w.all {
		if !s.live {
			continue
		}
		if svc := now[s.svc.stats]; svc != nil && (svc.Shadow == nil || svc.Shadow.Address != s.svc.Shadow.Address) {
			w.close(s, shadowOff)
		}
	}
}

// stop closes what is left when the worker ends.
func (w *shadowWorker) stop() {
	for _, s := range w.all {
		if s.live {
			w.close(s, shadowCut)
		}
	}
}

// close ends s, books it and frees it. Only what the shadow got whole ends
// without RST.
func (w *shadowWorker) close(s *shadow, why shadowResult) {
	if why == shadowOK && s.compare && !s.answers.equal(&s.real) {
		s.stats.mismatch.Add(1)
	}
	s.owner.copies[s.side] = nil
	if s.fd >= 0 {
		if why != shadowOK && !s.datagrams {
			sys.AbortOnClose(int(s.fd))
		}
		sys.Close(int(s.fd))
	}
	if s.buf != nil {
		w.bufs.release(s.buf)
	}
	if s.pipe != nil {
		w.putPipe(s)
	}
	w.loop.Cancel(&s.timer)
	w.proxy.shadows.Add(-1)
	s.stats.results[why].Add(1)
	s.stats.active.Add(-1)
	number := s.timer.Slot - shadowTimers
	*s = shadow{timer: eventloop.Timer{Slot: s.timer.Slot}, gen: s.gen + 1}
	w.free = append(w.free, number)
}

// putPipe gives the pipe of s back.
func (w *shadowWorker) putPipe(s *shadow) {
	w.pipes.put(s.pipe)
	s.pipe = nil
	if !w.trim.Scheduled() && len(w.pipes.idle) > 0 {
		w.loop.Schedule(&w.trim, w.loop.Now()+int64(trimEvery))
	}
}
