package proxy

import (
	"errors"
	"net/netip"
	"os"
	"sync/atomic"

	"github.com/tproxyd/tproxyd/internal/eventloop"
	"github.com/tproxyd/tproxyd/internal/sys"
	"golang.org/x/sys/unix"
)

// openUDPListener opens a socket for each worker on the address of key. Where
// a worker still has one, because flows of an earlier configuration end on it,
// that is kept and held has its descriptor, else -1.
func (p *Proxy) openUDPListener(key listenKey, origDst bool, held []int) ([]int, error) {
	fds := make([]int, 0, len(held))
	if !p.overlaps(key) && allNegative(held) {
		alone, err := sys.ListenUDP(key.addr, false, false)
		switch {
		case err == nil:
			sys.Close(alone)
		case !errors.Is(err, unix.EADDRINUSE) || !p.repliesFrom(key.addr):
			return nil, err
		}
	}
	for i, fd := range held {
		if fd < 0 {
			var err error
			if fd, err = listenUDP(key, origDst); err != nil {
				closeNew(fds, held[:i])
				return nil, err
			}
		}
		fds = append(fds, fd)
	}
	return fds, nil
}

// repliesFrom reports whether a flow's client socket is bound to a, or to an
// address that a covers.
func (p *Proxy) repliesFrom(a netip.AddrPort) bool {
	var found atomic.Bool
	p.each(func(w *worker) {
		w.udp.flows.all(func(f *udpFlow) {
			dest := f.dest.addrPort()
			if f.fds[client] >= 0 && (dest == a || dest.Port() == a.Port() && a.Addr().IsUnspecified()) {
				found.Store(true)
			}
		})
	})
	return found.Load()
}

func listenUDP(key listenKey, origDst bool) (int, error) {
	fd, err := sys.ListenUDP(key.addr, true, origDst)
	if err != nil {
		return -1, err
	}
	// Without original destinations, replies leave by this socket.
	name, set := "setsockopt(IP_RECVERR)", sys.SetRecvErr
	if origDst {
		name, set = "setsockopt(IP_PKTINFO)", sys.SetPacketInfo
	}
	if e := set(fd, sys.Family(key.addr.Addr())); e != 0 {
		sys.Close(fd)
		return -1, os.NewSyscallError(name, e)
	}
	return fd, nil
}

// closeNew closes the descriptors of fds that are not held.
func closeNew(fds, held []int) {
	for i, fd := range fds {
		if i >= len(held) || held[i] < 0 {
			sys.Close(fd)
		}
	}
}

func allNegative(fds []int) bool {
	for _, fd := range fds {
		if fd >= 0 {
			return false
		}
	}
	return true
}

// holdUDP has the workers keep their closing sockets on the address of key
// until the next install or letGo, and returns these.
func (p *Proxy) holdUDP(key listenKey) []int {
	held := make([]int, len(p.workers))
	for i := range held {
		held[i] = -1
	}
	p.each(func(w *worker) { held[w.id] = w.udp.hold(key) })
	return held
}

func (u *udpWorker) hold(key listenKey) int {
	for _, l := range u.listeners {
		if l != nil && l.key == key {
			l.held = true
			return l.fd
		}
	}
	return -1
}

// letGo takes back all holds.
func (u *udpWorker) letGo() {
	for _, l := range u.listeners {
		if l != nil && l.held {
			l.held = false
			u.closeIfIdle(l)
		}
	}
}

// install makes parts what u serves, by listen address. Flows go on, those
// whose service, address or backend is gone until the time drainAt.
func (u *udpWorker) install(parts map[listenKey]*part, sockets map[listenKey][]int, drainAt int64) {
	known := map[listenKey]bool{}
	for _, l := range u.listeners {
		if l == nil {
			continue
		}
		pt := parts[l.key]
		if pt == nil {
			u.retire(l)
			continue
		}
		known[l.key] = true
		if l.table != u.table(pt) { // the address went to another service
			u.flows.all(func(f *udpFlow) {
				if f.listener == l {
					l.table.unbind(f)
				}
			})
		}
		l.part, l.table, l.closing, l.held = pt, u.table(pt), false, false
	}
	for key, pt := range parts {
		if key.protocol == UDP && !known[key] {
			u.start()
			u.addListener(key, sockets[key][u.id], pt)
		}
	}
	u.flows.all(func(f *udpFlow) { u.reassign(f, parts, drainAt) })
}

// reassign gives f to the new part of its service, or has it drained.
func (u *udpWorker) reassign(f *udpFlow, parts map[listenKey]*part, drainAt int64) {
	pt := parts[f.listener.key]
	if pt == nil || u.tables[pt.svc.stats] != f.table || !f.moveTo(pt) {
		u.drainFlow(f, drainAt)
		return
	}
	f.drainAt = 0 // it may have been drained for a while
	u.schedule(f)
}

// moveTo makes f a flow of the part pt, if that has f's backend.
func (f *udpFlow) moveTo(pt *part) bool {
	if f.part.svc.original() {
		if !pt.svc.original() {
			return false
		}
		f.part = pt
		return true
	}
	old := f.part.svc.Backends[f.choice]
	for i, b := range pt.svc.Backends {
		if b.Name == old.Name && b.Addr == old.Addr {
			f.part, f.choice = pt, uint16(i)
			return true
		}
	}
	return false
}

// table returns the flows of pt's service.
func (u *udpWorker) table(pt *part) *udpTable {
	t := u.tables[pt.svc.stats]
	if t == nil {
		t = &udpTable{flows: map[addrPair]*udpFlow{}}
		u.tables[pt.svc.stats] = t
	}
	return t
}

func (u *udpWorker) addListener(key listenKey, fd int, pt *part) {
	l := &udpListener{fd: fd, index: len(u.listeners), key: key, addr: newEndpoint(key.addr), part: pt, flows: u.proxy.held[key]}
	for i, old := range u.listeners {
		if old == nil {
			l.index = i
		}
	}
	if l.index == len(u.listeners) {
		u.listeners = append(u.listeners, nil)
	}
	l.table = u.table(pt)
	u.listeners[l.index] = l
	if err := u.loop.Add(fd, unix.EPOLLIN, eventloop.Tag{Slot: udpListeners + uint32(l.index)}); err != nil {
		u.proxy.report(event{kind: eventAccept, service: pt.svc.Name, err: err})
	}
}

// retire has l take no new flows. It is closed when no worker has a flow on its
// address: with one socket less, the kernel would give the others' clients to
// other workers than before (reuseport_select_sock).
func (u *udpWorker) retire(l *udpListener) {
	u.serve(l) // what came before belongs to the old configuration
	l.closing = true
	u.closeIfIdle(l)
}

// closeIdle has all workers close their listeners on the address of key, if it
// is no longer configured.
func (p *Proxy) closeIdle(key listenKey) {
	for _, w := range p.workers {
		w.loop.Post(func() {
			for _, l := range w.udp.listeners {
				if l != nil && l.key == key {
					w.udp.closeIfIdle(l)
				}
			}
		})
	}
}

func (u *udpWorker) closeIfIdle(l *udpListener) {
	if l.closing && !l.held && l.flows.Load() == 0 {
		u.closeListener(l)
	}
}

func (u *udpWorker) closeListener(l *udpListener) {
	u.leave(&u.home, l.fd)
	sys.Close(l.fd)
	u.listeners[l.index] = nil
}

// drainFlow has f end at the time at, if it is still there.
func (u *udpWorker) drainFlow(f *udpFlow, at int64) {
	if f.drainAt == 0 || at < f.drainAt {
		f.drainAt = at
		u.schedule(f)
	}
}

// drain takes no more flows, and ends those there are at the time at.
func (u *udpWorker) drain(at int64) {
	for _, l := range u.listeners {
		if l != nil {
			l.held = false
			u.retire(l)
		}
	}
	u.flows.all(func(f *udpFlow) { u.drainFlow(f, at) })
}

// stop closes what the worker has for all flows. They have ended.
func (u *udpWorker) stop() {
	for _, l := range u.listeners {
		if l != nil {
			u.closeListener(l)
		}
	}
	for _, raw := range u.raws {
		if raw != nil {
			raw.Close()
		}
	}
	if u.icmpOut != nil {
		u.icmpOut.Close()
	}
}
