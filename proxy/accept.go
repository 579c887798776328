package proxy

import (
	"net/netip"
	"time"

	"github.com/tproxyd/tproxyd/internal/eventloop"
	"github.com/tproxyd/tproxyd/internal/sys"
	"golang.org/x/sys/unix"
)

const (
	acceptBatch  = 64                     // connections taken from one listener in a row
	earlyRead    = 4 << 10                // bytes of a client taken before its upstream is there
	limitRecheck = 20 * time.Millisecond  // another worker may have ended the flow that is awaited
	errorBackoff = 100 * time.Millisecond // after EMFILE and the like
)

// accept takes connections from l until there are none, or a limit is reached.
func (w *worker) accept(l *listener) {
	for range acceptBatch {
		if !w.admit(l.part.svc) {
			return
		}
		fd, e := sys.Accept(l.fd, &w.addr)
		if e != 0 {
			w.proxy.unadmit(l.part.svc)
			if w.acceptFailed(l, e) {
				continue
			}
			return
		}
		w.begin(l, fd, w.addr.AddrPort())
	}
}

// admit counts a flow to come, or pauses accepting and returns false if that
// would pass a limit.
func (w *worker) admit(svc *service) bool {
	p := w.proxy
	if p.active.Add(1) > p.maxConnections.Load() {
		p.active.Add(-1)
		w.pause(pauseConnections, limitRecheck)
		return false
	}
	if n := svc.stats.active.Add(1); svc.MaxConnections > 0 && n > int64(svc.MaxConnections) {
		p.unadmit(svc)
		w.pauseService(svc)
		return false
	}
	return true
}

// unadmit takes back admit.
func (p *Proxy) unadmit(svc *service) {
	p.active.Add(-1)
	svc.stats.active.Add(-1)
}

// acceptFailed reports whether it is worth going on at once. Whatever the
// error, the listener stays (accept(2), "Error handling").
func (w *worker) acceptFailed(l *listener, e sys.Errno) (goOn bool) {
	switch e {
	case unix.EAGAIN:
		return false
	case unix.EMFILE, unix.ENFILE:
		w.shortOf(pauseDescriptors, e)
		return false
	case unix.ENOBUFS, unix.ENOMEM:
		w.shortOf(pauseMemory, e)
		return false
	case unix.EINTR, unix.ECONNABORTED, unix.EPROTO, unix.ENETDOWN, unix.ENOPROTOOPT, unix.EHOSTDOWN,
		unix.ENONET, unix.EHOSTUNREACH, unix.EOPNOTSUPP, unix.ENETUNREACH, unix.EPERM:
		return true // errors of the connection that was to be taken, not of the listener
	}
	w.proxy.report(event{kind: eventAccept, service: l.part.svc.Name, err: e})
	w.shortOf(pauseMemory, e)
	return false
}

// shortOf pauses accepting because the kernel has refused a resource.
func (w *worker) shortOf(why pause, e sys.Errno) {
	w.proxy.report(event{kind: eventResources, err: e})
	w.backoff = true
	w.pause(why, errorBackoff)
}

// pause stops accepting on all listeners. It goes on when a flow of this
// worker ends, or after d.
func (w *worker) pause(why pause, d time.Duration) {
	w.loop.Schedule(&w.resume, w.loop.Now()+int64(d))
	if w.blocked {
		return
	}
	w.blocked = true
	w.stats.pauses[why].Add(1)
	w.stats.paused.Store(true)
	for _, l := range w.listeners {
		if l != nil {
			w.watch(l, false)
		}
	}
}

// pauseService stops accepting on the listeners of svc.
func (w *worker) pauseService(svc *service) {
	w.loop.Schedule(&w.resume, w.loop.Now()+int64(limitRecheck))
	for _, l := range w.listeners {
		if l != nil && l.open && l.part.svc.stats == svc.stats {
			w.stats.paused.Store(true)
			w.watch(l, false)
		}
	}
	w.stats.pauses[pauseService].Add(1)
}

// resumeAccepting watches the listeners again whose limits allow it.
func (w *worker) resumeAccepting() {
	if w.backoff {
		return
	}
	waits := w.proxy.active.Load() >= w.proxy.maxConnections.Load()
	w.blocked = waits
	for _, l := range w.listeners {
		if waits || l == nil || l.open {
			continue
		}
		if svc := l.part.svc; svc.MaxConnections > 0 && svc.stats.active.Load() >= int64(svc.MaxConnections) {
			waits = true
			continue
		}
		w.watch(l, true)
	}
	w.stats.paused.Store(waits)
	if waits {
		w.loop.Schedule(&w.resume, w.loop.Now()+int64(limitRecheck))
	} else {
		w.loop.Cancel(&w.resume)
	}
}

// watch registers or unregisters l with epoll. Listeners are level-triggered:
// what is left in the queue is announced again.
func (w *worker) watch(l *listener, on bool) {
	if l.open == on {
		return
	}
	var err error
	if on {
		err = w.loop.Add(l.fd, unix.EPOLLIN, eventloop.Tag{Slot: listenerSlots + uint32(l.index)})
	} else {
		err = w.loop.Remove(l.fd)
	}
	if err != nil {
		w.proxy.report(event{kind: eventAccept, service: l.part.svc.Name, err: err})
		return
	}
	l.open = on
}

// begin makes a flow of the accepted socket fd.
func (w *worker) begin(l *listener, fd int, from netip.AddrPort) {
	f := w.flows.take()
	pt := l.part
	now := w.loop.Now()
	f.part, f.id, f.client, f.accepted, f.lastActive = pt, w.nextID, newEndpoint(from), now, now
	f.policy = pt.svc.Source
	f.state = waiting
	f.drainAt = w.draining
	w.nextID++
	w.stats.flows.Add(1)
	pt.shard.accepted.Add(1)
	f.legs[client] = leg{fd: int32(fd), readable: true, writable: true, nodelay: true}
	f.legs[upstream].fd = -1
	dest := l.addr
	if pt.svc.Mode == Intercept || l.addr.Addr().IsUnspecified() {
		if e := sys.LocalName(fd, &w.addr); e == 0 {
			dest = w.addr.AddrPort()
		}
	}
	f.dest = newEndpoint(dest)
	if pt.svc.Mode == Intercept && w.proxy.guard.loops(from, dest) {
		w.end(f, Loop)
		return
	}
	header, hello := w.expects(f, from.Addr())
	if header && !pt.svc.trusts(from.Addr()) {
		w.end(f, ProxyHeaderRefused)
		return
	}
	if !header && !w.admitClient(f) {
		return
	}
	if err := w.loop.Add(fd, flowEvents, f.tag(client)); err != nil {
		w.proxy.report(event{kind: eventResources, err: err})
		w.end(f, ResourcesExhausted)
		return
	}
	if header || hello {
		w.beginGreeting(f, header, hello)
		return
	}
	w.readEarly(f)
	if f.state != free {
		w.announce(f, nil)
		w.connect(f)
	}
}

// readEarly takes what the client has sent along with its handshake. Then the
// upstream's handshake can be ended by a packet that carries these bytes.
func (w *worker) readEarly(f *flow) {
	n, e := sys.Recv(int(f.legs[client].fd), w.buf[:earlyRead])
	switch {
	case e == unix.EAGAIN:
		f.legs[client].readable = false
	case e != 0:
		w.end(f, ClientAbort)
	case n == 0:
		f.dirs[client].eof = true
	case f.unproven && f.forged(w.buf[:n]):
		w.end(f, ProxyHeaderRefused)
	default:
		w.count(f, client, pathCopy, n)
		f.dirs[client].buf = w.bufs.hold(w.buf[:n])
		f.legs[client].readable = n == earlyRead || f.legs[client].ending
	}
}
