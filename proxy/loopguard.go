package proxy

import (
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// loopGuard finds flows that the proxy would make with itself: those whose
// destination is one of its own listeners, and those that come from one of its
// own upstream sockets because a rule lacks the exemption of the mark.
//
// With the source policy client the second kind cannot happen: the looped flow
// would have the 4-tuple of the flow that it comes from. So only the others'
// upstream connections are kept, and only those to original destinations. A
// looped connection comes at once, so they are kept for settleAfter: later, a
// client of the same address may well use the same port to the same server.
type loopGuard struct {
	listens atomic.Pointer[listens]
	n       atomic.Int64 // members of own; without any, flows pass without the lock

	mu    sync.Mutex
	own   map[addrPair]struct{}
	local map[netip.Addr]struct{} // the host's addresses
	asOf  time.Time
}

// addrPair is the two ends of a connection.
type addrPair struct{ from, to endpoint }

// listenKey is an address that the proxy listens on.
type listenKey struct {
	protocol Protocol
	addr     netip.AddrPort
}

// listens are the addresses the proxy listens on, without zones.
type listens map[listenKey]struct{}

// loops reports whether a TCP flow from client to dest would go round.
func (g *loopGuard) loops(client, dest netip.AddrPort) bool {
	return g.has(addrPair{newEndpoint(client), newEndpoint(dest)}) || g.isListener(listenKey{TCP, dest})
}

// isListener reports whether the proxy itself takes what is sent to dest.
func (g *loopGuard) isListener(dest listenKey) bool {
	l := g.listens.Load()
	return l != nil && g.isOwn(*l, dest)
}

// isOwn reports whether one of l takes what is sent to to.
func (g *loopGuard) isOwn(l listens, to listenKey) bool {
	if _, ok := l[to.unzoned()]; ok {
		return true
	}
	dest := to.addr
	ip, all := dest.Addr().WithZone(""), netip.IPv4Unspecified()
	if ip.Is6() {
		all = netip.IPv6Unspecified()
	}
	if _, ok := l[listenKey{to.protocol, netip.AddrPortFrom(all, dest.Port())}]; !ok {
		return false
	}
	return ip.IsLoopback() || g.isLocal(ip)
}

// isLocal asks the kernel for the host's addresses, at most once a second.
func (g *loopGuard) isLocal(ip netip.Addr) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if time.Since(g.asOf) > time.Second {
		addrs, err := net.InterfaceAddrs()
		if err == nil {
			g.local = make(map[netip.Addr]struct{}, len(addrs))
			for _, a := range addrs {
				if n, ok := a.(*net.IPNet); ok {
					if addr, ok := netip.AddrFromSlice(n.IP); ok {
						g.local[addr.Unmap()] = struct{}{}
					}
				}
			}
		}
		g.asOf = time.Now()
	}
	_, ok := g.local[ip]
	return ok
}

// has reports whether a is a connection of our own.
func (g *loopGuard) has(a addrPair) bool {
	if g.n.Load() == 0 {
		return false
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	_, ok := g.own[a]
	return ok
}

func (g *loopGuard) add(a addrPair) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.own == nil {
		g.own = map[addrPair]struct{}{}
	}
	g.own[a] = struct{}{}
	g.n.Store(int64(len(g.own)))
}

// unguard forgets f's upstream connection.
func (w *worker) unguard(f *flow) {
	if !f.guarded {
		return
	}
	f.guarded = false
	g := &w.proxy.guard
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.own, addrPair{f.source, f.dest})
	g.n.Store(int64(len(g.own)))
}

// unzoned drops the zone, which has a name in one place and a number in another.
func (k listenKey) unzoned() listenKey {
	k.addr = netip.AddrPortFrom(k.addr.Addr().WithZone(""), k.addr.Port())
	return k
}

// newListens returns the addresses that services listen on.
func newListens(services []Service) listens {
	l := listens{}
	for _, s := range services {
		for _, a := range s.Listen {
			l[listenKey{s.Protocol, a}.unzoned()] = struct{}{}
		}
	}
	return l
}

// checkBackends returns an error for a backend that is one of l.
func (g *loopGuard) checkBackends(services []Service, l listens) error {
	for _, s := range services {
		for _, b := range s.Backends {
			if g.isOwn(l, listenKey{s.Protocol, b.Addr}) {
				return fmt.Errorf("service %q: backend %v is an address that the proxy itself listens on: its flows would go round", s.Name, b.Addr)
			}
		}
	}
	return nil
}
