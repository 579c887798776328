package proxy

import (
	"errors"
	"net/netip"
	"time"

	"github.com/tproxyd/tproxyd/internal/balance"
	"github.com/tproxyd/tproxyd/internal/sys"
	"golang.org/x/sys/unix"
)

// newPart is w's part of svc.
func (w *worker) newPart(svc *service) *part {
	pt := &part{svc: svc, shard: svc.stats.shards[w.id]}
	if svc.original() {
		pt.backends = append(pt.backends, svc.stats.backend(originalBackend).shards[w.id])
	}
	for _, b := range svc.Backends {
		pt.backends = append(pt.backends, svc.stats.backend(b.Name).shards[w.id])
	}
	pt.pickers = make([][poolCount]*balance.Selector, len(svc.split))
	for route, views := range svc.split {
		for i, v := range views {
			pt.pickers[route][i] = v.Selector(w.id)
		}
	}
	if svc.Protocol == TCP {
		pt.queues = make([][poolCount]*queue, len(svc.split))
		for route := range pt.queues {
			for i := range pt.queues[route] {
				pt.queues[route][i] = w.queueOf(svc.stats, queueKey{svc.routeName(uint16(route)), i})
			}
		}
	}
	return pt
}

// install makes services what w serves.
func (w *worker) install(services []*service, sockets map[listenKey][]int, drain time.Duration) {
	parts := map[listenKey]*part{}
	current := map[*serviceStats]*part{}
	for _, svc := range services {
		pt := w.newPart(svc)
		if current[svc.stats] = pt; svc.Protocol == UDP {
			current[svc.stats] = nil
		}
		for _, key := range svc.keys() {
			parts[key] = pt
		}
	}
	known := map[listenKey]bool{}
	for _, l := range w.listeners {
		if l == nil {
			continue
		}
		key := listenKey{TCP, l.addr}
		if pt := parts[key]; pt != nil {
			known[key] = true
			w.assign(l, pt)
		} else {
			w.closeListener(l)
		}
	}
	for key, pt := range parts {
		if key.protocol == TCP && !known[key] {
			w.addListener(key.addr, sockets[key][w.id], pt)
		}
	}
	w.resumeAccepting()
	at := w.loop.Now() + int64(drain)
	w.udp.install(parts, sockets, at)
	w.shadow.reload(services)
	w.flows.all(func(f *flow) {
		pt := current[f.part.svc.stats]
		if pt == nil {
			w.drainFlow(f, at)
			return
		}
		f.drainAt = 0 // its service may have been gone for a while
		if f.state == greeting || f.state == queued {
			w.moveTo(f, pt)
		}
	})
}

// moveTo makes f, which has no backend yet, a flow of the part pt.
func (w *worker) moveTo(f *flow, pt *part) {
	waits, ticket := f.state == queued, f.ticket
	if waits {
		w.leaveQueue(f)
		f.ticket = ticket
	}
	f.route = pt.svc.routeOf(f.part.svc.routeName(f.route))
	f.part, f.tried, f.policy = pt, balance.Set{}, pt.svc.Source
	if waits {
		w.connect(f)
	} else {
		w.regreet(f)
	}
}

// assign gives l to a part. Sockets that are accepted from now on inherit its
// liveness options.
func (w *worker) assign(l *listener, pt *part) {
	l.part = pt
	if err := sys.SetLiveness(l.fd, pt.svc.liveness()); err != nil {
		w.proxy.report(event{kind: eventOption, service: pt.svc.Name, err: err})
	}
}

func (w *worker) addListener(a netip.AddrPort, fd int, pt *part) {
	l := &listener{fd: fd, addr: a, index: len(w.listeners)}
	for i, old := range w.listeners {
		if old == nil {
			l.index = i
		}
	}
	if l.index == len(w.listeners) {
		w.listeners = append(w.listeners, nil)
	}
	w.listeners[l.index] = l
	w.assign(l, pt)
	if !w.blocked {
		w.watch(l, true)
	}
}

// closeListener takes what has connected already, and closes l.
func (w *worker) closeListener(l *listener) {
	for {
		fd, e := sys.Accept(l.fd, &w.addr)
		if errors.Is(e, unix.ECONNABORTED) || errors.Is(e, unix.EINTR) {
			continue
		}
		if e != 0 {
			break
		}
		w.proxy.active.Add(1)
		l.part.svc.stats.active.Add(1)
		w.begin(l, fd, w.addr.AddrPort())
	}
	sys.Close(l.fd)
	w.listeners[l.index] = nil
}

// drain stops accepting and sets the time at which flows are cut.
func (w *worker) drain(timeout time.Duration) {
	w.draining = max(1, w.loop.Now()+int64(timeout))
	for _, l := range w.listeners {
		if l != nil {
			w.closeListener(l)
		}
	}
	w.flows.all(func(f *flow) { w.drainFlow(f, w.draining) })
	w.udp.drain(w.draining)
}

// drainFlow has f cut at the time at, if it is still there.
func (w *worker) drainFlow(f *flow, at int64) {
	if f.drainAt != 0 && f.drainAt <= at {
		return
	}
	f.drainAt = at
	switch f.state {
	case relaying:
		w.loop.Schedule(&f.timer, w.flowDeadline(f))
	case greeting, queued, waiting, connecting, resetting:
		w.loop.Schedule(&f.timer, f.due())
	case free:
	}
}

// cut ends all flows at once.
func (w *worker) cut() {
	w.flows.all(func(f *flow) { w.end(f, Drained) })
	w.udp.flows.all(func(f *udpFlow) { w.udp.end(f, Drained) })
	w.handOver()
}
