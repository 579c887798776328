package proxy

import (
	"net/netip"
	"time"

	"github.com/tproxyd/tproxyd/internal/sys"
	"golang.org/x/sys/unix"
)

// conflictWaits are the pauses before a 4-tuple that is in use is tried again.
// A client that closes and connects at once from the same port meets what is
// left of its previous flow, which is gone after a round trip or two.
var conflictWaits = [...]time.Duration{5 * time.Millisecond, 20 * time.Millisecond, 50 * time.Millisecond, 100 * time.Millisecond}

// connect opens the upstream leg of f: to its original destination, or to the
// next backend.
func (w *worker) connect(f *flow) {
	f.state = waiting
	switch {
	case f.part.svc.original():
		f.chooseOriginal()
		w.dial(f)
	case w.choose(&f.head):
		w.dial(f)
	default:
		w.noBackend(f)
	}
}

// dial makes the upstream socket, gives it its source and starts connecting.
func (w *worker) dial(f *flow) {
	f.connectAt = w.loop.Now()
	target := f.target()
	fd, e := sys.TCPSocket(sys.Family(target.Addr()))
	if e != 0 {
		if e == unix.EMFILE || e == unix.ENFILE {
			w.shortOf(pauseDescriptors, e)
		}
		w.end(f, ResourcesExhausted)
		return
	}
	f.legs[upstream] = leg{fd: int32(fd)}
	if e := w.bindSource(f, fd); e != 0 {
		w.connectFailed(f, e)
		return
	}
	if f.dirs[client].pending() {
		// The last ACK of the handshake waits for the bytes at hand. Only that
		// one: the kernel goes back to prompt ACKs by itself.
		sys.SetInt(fd, unix.SOL_TCP, unix.TCP_QUICKACK, 0)
	}
	w.tapDialing(f)
	w.addr.Set(target)
	if e := sys.Connect(fd, &w.addr); e != 0 && e != unix.EINPROGRESS {
		w.connectFailed(f, e)
		return
	}
	w.noteSource(f, fd)
	w.tapDialed(f)
	if err := w.loop.Add(fd, flowEvents, f.tag(upstream)); err != nil {
		w.proxy.report(event{kind: eventResources, err: err})
		w.end(f, ResourcesExhausted)
		return
	}
	f.state = connecting
	f.deadline = w.loop.Now() + int64(f.part.svc.ConnectTimeout)
	w.loop.Schedule(&f.timer, f.due())
}

// bindSource gives fd the source address of f's policy. Errors of bind and of
// the options are told apart by bindErrno.
func (w *worker) bindSource(f *flow, fd int) sys.Errno {
	if e := w.setMark(f.part.svc, fd); e != 0 {
		return e
	}
	// An urgent byte keeps its place in the stream.
	sys.SetInt(fd, unix.SOL_SOCKET, unix.SO_OOBINLINE, 1)
	if f.policy == Host {
		return 0
	}
	from := f.client.addrPort()
	family := sys.Family(from.Addr())
	if family != sys.Family(f.target().Addr()) {
		return unix.EAFNOSUPPORT
	}
	if e := sys.SetTransparent(fd, family); e != 0 {
		return e
	}
	// Without it a port towards one server would be taken towards all others:
	// bind looks at the local address alone.
	sys.SetInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	if f.policy == ClientIP {
		if e := sys.SetInt(fd, unix.SOL_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1); e != 0 {
			return e
		}
		w.addr.Set(netip.AddrPortFrom(from.Addr(), 0))
		return sys.Bind(fd, &w.addr)
	}
	w.addr.Set(from)
	e := sys.Bind(fd, &w.addr)
	if e == unix.EADDRINUSE {
		// A listener of ours on the same port is no obstacle among sockets of
		// one user that all say SO_REUSEPORT.
		sys.SetInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
		e = sys.Bind(fd, &w.addr)
	}
	return e
}

// setMark marks a socket of svc. Unmarked, what it sends could be caught by the
// rule that brought the client here, and again, and again.
func (w *worker) setMark(svc *service, fd int) sys.Errno {
	if svc.mark == 0 {
		return 0
	}
	e := sys.SetInt(fd, unix.SOL_SOCKET, unix.SO_MARK, int(svc.mark))
	if e != 0 {
		w.proxy.report(event{kind: eventMark, service: svc.Name, err: e})
	}
	return e
}

// noteSource learns which source the upstream sees, where somebody wants it.
func (w *worker) noteSource(f *flow, fd int) {
	svc := f.part.svc
	guard := svc.original()
	switch {
	case f.policy == Client || f.policy == PreferClient:
		f.source = f.client
	case guard || svc.records || w.tap != nil:
		if sys.LocalName(fd, &w.addr) == 0 {
			f.source = newEndpoint(w.addr.AddrPort())
		}
	}
	if guard && f.source != f.client {
		w.proxy.guard.add(addrPair{f.source, f.dest})
		f.guarded = true
	}
}

// connectEvent handles an event of the upstream socket while it connects.
func (w *worker) connectEvent(f *flow, events uint32) {
	fd := int(f.legs[upstream].fd)
	if events&(unix.EPOLLERR|unix.EPOLLHUP) != 0 {
		if e := sys.SocketError(fd); e != 0 && !w.lastWords(f, e) {
			w.connectFailed(f, e)
			return
		}
	}
	if events&unix.EPOLLOUT == 0 {
		return
	}
	now := w.loop.Clock()
	f.connected = now
	f.lastActive = now
	f.state = relaying
	f.backend.results[resultOK].Add(1)
	f.backend.connect.observe(time.Duration(now - f.connectAt))
	if f.guarded && w.proxy.guard.has(addrPair{f.client, f.dest}) {
		w.end(f, Loop)
		return
	}
	w.loop.Schedule(&f.timer, w.flowDeadline(f))
	if f.part.svc.Shadow != nil {
		w.shadow.startTCP(f)
	}
	w.relay(f)
}

// lastWords reports whether an upstream that fails by e has accepted the
// connection and said something before. That is the client's; a connection
// that was accepted and reset in silence may be tried elsewhere.
func (w *worker) lastWords(f *flow, e sys.Errno) bool {
	l := &f.legs[upstream]
	n, _ := sys.Recv(int(l.fd), w.buf[:])
	if n <= 0 {
		return false
	}
	w.count(f, upstream, pathCopy, n)
	f.dirs[upstream].buf = w.bufs.hold(w.buf[:n])
	l.take(e)
	return true
}

// connectFailed goes on with another source port, another backend or a later
// try, or ends the flow.
func (w *worker) connectFailed(f *flow, e sys.Errno) {
	res, reason := connectResult(f, e)
	w.tapFailed(f, reason)
	f.backend.results[res].Add(1)
	if kind := failureOf(reason); kind != failureNone {
		w.failed(&f.head, kind)
	}
	w.dropUpstream(f)
	if reason == SourceConflict {
		if f.waits == 0 && f.retries == 0 {
			f.part.shard.conflicts.Add(1)
		}
		if f.policy == PreferClient {
			f.policy = ClientIP
			w.dial(f)
			return
		}
	}
	svc := f.part.svc
	if int(f.retries) < svc.Retries && reason != SourceDenied && !svc.original() && w.choose(&f.head) {
		f.retries++
		w.dial(f)
		return
	}
	if reason == SourceConflict && int(f.waits) < len(conflictWaits) {
		f.state = waiting
		f.deadline = w.loop.Now() + int64(conflictWaits[f.waits])
		f.waits++
		w.loop.Schedule(&f.timer, f.due())
		return
	}
	w.end(f, reason)
}

// dropUpstream closes an upstream socket that did not get connected.
func (w *worker) dropUpstream(f *flow) {
	f.state = waiting
	w.unguard(f)
	if fd := f.legs[upstream].fd; fd >= 0 {
		sys.Close(int(fd))
	}
	f.legs[upstream] = leg{fd: -1}
	w.loop.Cancel(&f.timer)
}

// connectResult names the error of a try (connect(2), ip(7)).
func connectResult(f *flow, e sys.Errno) (result, Reason) {
	switch e {
	case unix.ECONNREFUSED, unix.ECONNRESET:
		return resultRefused, ConnectRefused
	case unix.ETIMEDOUT:
		return resultTimeout, ConnectTimeout
	case unix.ENETUNREACH, unix.EHOSTUNREACH, unix.ENETDOWN, unix.EHOSTDOWN, unix.ENONET:
		return resultUnreachable, ConnectUnreachable
	case unix.EADDRINUSE, unix.EADDRNOTAVAIL:
		if f.policy == Client || f.policy == PreferClient {
			return resultConflict, SourceConflict
		}
		if f.policy == Host && sys.Route(f.target()) != 0 {
			return resultUnreachable, ConnectUnreachable // no address rather than no port
		}
		return resultError, PortsExhausted
	case unix.EACCES, unix.EPERM:
		return resultError, SourceDenied
	}
	return resultError, ConnectFailed
}
