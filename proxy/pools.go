package proxy

import (
	"github.com/tproxyd/tproxyd/internal/balance"
	"golang.org/x/sys/unix"
)

// The pools that a flow may choose from: a backend cannot see the address of a
// client of the other family.
const (
	poolV4  = iota
	poolV6  // clients with an IPv6 address
	poolAny // the source is the proxy's own address
	poolCount
)

func (f *head) pool() int {
	switch {
	case f.policy == Host:
		return poolAny
	case f.client.v4():
		return poolV4
	}
	return poolV6
}

// original reports whether flows of s go to their original destination.
func (s *Service) original() bool {
	return s.Mode == Intercept && len(s.Backends) == 0 && !s.Discovered
}

// routeOf is the number of the route called name; 0, the default pool, if there
// is none.
func (s *Service) routeOf(name string) uint16 {
	for i, r := range s.Routes {
		if r.Name == name {
			return uint16(i + 1)
		}
	}
	return 0
}

// routeName is the reverse of routeOf.
func (s *Service) routeName(route uint16) string {
	if route == 0 {
		return ""
	}
	return s.Routes[route-1].Name
}

// views divides the backends of s by route and pool.
func (s *Service) views(p *balance.Pool) [][poolCount]*balance.View {
	members := make([][poolCount][]int, len(s.Routes)+1)
	for i, b := range s.Backends {
		own := poolV4
		if b.Addr.Addr().Is6() {
			own = poolV6
		}
		m := &members[b.Route]
		m[own] = append(m[own], i)
		m[poolAny] = append(m[poolAny], i)
	}
	views := make([][poolCount]*balance.View, len(members))
	for route := range members {
		for i := range members[route] {
			views[route][i] = p.View(members[route][i])
		}
	}
	return views
}

// selector chooses for f.
func (f *head) selector() *balance.Selector { return f.part.pickers[f.route][f.pool()] }

// pick chooses a backend that f has not tried and that can be reached from its
// source address.
func (f *head) pick() (int, bool) {
	s := f.selector()
	if !f.part.svc.hashes {
		return s.Pick(nil, &f.tried)
	}
	k := balance.Key{Client: f.client.addrPort(), Destination: f.dest.addrPort(), Protocol: unix.IPPROTO_TCP}
	if f.part.svc.Protocol == UDP {
		k.Protocol = unix.IPPROTO_UDP
	}
	return s.Pick(&k, &f.tried)
}

// maxRaces is how often a backend may be full that was just chosen because it
// was not.
const maxRaces = 4

// choose makes a backend the upstream of f that has room for it, and takes the
// room. A backend that f had before is left.
func (w *worker) choose(f *head) bool {
	for range maxRaces {
		i, ok := f.pick()
		if !ok {
			return false
		}
		if f.part.svc.pool.Acquire(i) {
			w.vacate(f)
			f.tried.Add(i)
			f.choice, f.backend, f.counted = uint16(i), f.part.backends[i], true
			f.backend.active.Add(1)
			return true
		}
	}
	return false
}

// chooseOriginal makes f's original destination its upstream.
func (f *head) chooseOriginal() {
	f.backend, f.counted = f.part.backends[0], true
	f.backend.active.Add(1)
}

// vacate gives back the room that f has at its backend. A flow that waits for
// room goes on.
func (w *worker) vacate(f *head) {
	if !f.counted {
		return
	}
	f.counted = false
	f.backend.active.Add(-1)
	if svc := f.part.svc; !svc.original() {
		svc.pool.Release(int(f.choice))
		if svc.Backends[f.choice].Limit > 0 {
			w.roomAt(f)
		}
	}
}
