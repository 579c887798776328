package proxy

import "github.com/tproxyd/tproxyd/internal/sys"

// find returns the flow of a datagram from key.from to key.to, a new one if
// need be, or why there can be none.
func (u *udpWorker) find(l *udpListener, key addrPair, from *sys.SockAddr, c *sys.Control) (*udpFlow, drop) {
	f := l.table.flows[key]
	switch {
	case f == nil:
		if u.cameBack(l, key) {
			return nil, dropLoop
		}
		return u.open(l, key, from, c.Interface == loopbackIndex, nil)
	case u.loopedBack(f, c):
		u.end(f, Loop)
		return nil, dropLoop
	case f.spent:
		return u.succeed(f)
	}
	return f, dropNone
}

// succeed begins a new flow in place of f, which has had its requests. If
// towards every backend the client's address is still in use, by f or flows
// like it, f goes on.
func (u *udpWorker) succeed(f *udpFlow) (*udpFlow, drop) {
	l, from, local := f.listener, f.peer, f.local
	l.table.unbind(f)
	next, why := u.open(l, f.key(), &from, local, f)
	if next == nil && f.part != nil {
		l.table.bind(f)
		if why == dropConflict {
			f.spent, f.spentAt = false, f.datagrams[client]
			return f, dropNone
		}
	}
	return next, why
}

// cameBack reports whether a datagram that would begin a flow has the addresses
// of one that we have sent, or is for ourselves.
func (u *udpWorker) cameBack(l *udpListener, key addrPair) bool {
	if l.part.svc.Mode != Intercept {
		return false
	}
	return u.proxy.tuples.has(key) || u.proxy.guard.isListener(listenKey{UDP, key.to.addrPort()})
}

// loopedBack reports whether a datagram of f is one that f itself has sent to
// its upstream and that a rule brought back. Under the source policies that
// keep the client's address and port the two look the same, but only what this
// host sends comes by its loopback interface, and such clients are not served
// under these policies (see tryUpstream).
func (u *udpWorker) loopedBack(f *udpFlow, c *sys.Control) bool {
	return c.Interface == loopbackIndex && f.part.svc.Mode == Intercept && (f.policy == Client || f.policy == PreferClient)
}

// loopbackIndex is the number of the interface lo in every network namespace
// (LOOPBACK_IFINDEX).
const loopbackIndex = 1

// open begins the flow of key, after old if that is not nil.
func (u *udpWorker) open(l *udpListener, key addrPair, from *sys.SockAddr, local bool, old *udpFlow) (*udpFlow, drop) {
	svc := l.part.svc
	if l.closing || u.draining != 0 {
		return nil, dropDraining
	}
	v, counted := u.consult(l.part, key.from)
	if !v.OK() {
		u.tellRefused(l.part, key.from, denials[v].reason)
		return nil, denials[v].drop
	}
	if !u.admit(l) {
		if counted != nil {
			counted.Done(key.from.addrPort().Addr())
		}
		return nil, dropTableFull
	}
	f := u.flows.take()
	now := u.loop.Now()
	f.part, f.listener, f.table, f.peer = l.part, l, l.table, *from
	f.id, f.client, f.dest, f.accepted, f.lastActive = u.nextID, key.from, key.to, now, now
	f.policy, f.local, f.admission, f.named = svc.Source, local, counted, key.from != endpointOf(from)
	f.fds = [2]int32{-1, -1}
	if u.proxy.gso {
		f.segment = [2]int{maxSegment, maxSegment}
	}
	u.nextID++
	f.admitted = true
	u.tapOpened(f)
	why := u.connectUpstream(f)
	if why == dropNone {
		why = u.connectClient(f, old)
	}
	if why != dropNone {
		u.abandon(f, why.reason())
		return nil, why
	}
	l.flows.Add(1)
	l.table.add(f)
	f.part.shard.udp.flows.Add(1)
	if svc.Shadow != nil {
		u.shadow.start(&f.head)
	}
	u.loop.Schedule(&f.timer, u.deadline(f))
	return f, dropNone
}

// abandon frees a flow that did not come to be.
func (u *udpWorker) abandon(f *udpFlow, why Reason) {
	u.closeSockets(f)
	u.tapEnded(f, why)
	u.unclaim(f)
	u.vacate(&f.head)
	f.dismiss()
	f.part.svc.stats.flows.Add(-1)
	u.proxy.flows.Add(-1)
	u.flows.give(f)
}
