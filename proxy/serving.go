package proxy

import (
	"github.com/tproxyd/tproxyd/internal/balance"
	"github.com/tproxyd/tproxyd/internal/sys"
	"golang.org/x/sys/unix"
)

// Serving is the clients that a service has a backend for, by their address.
type Serving struct{ IPv4, IPv6 bool }

// Serving tells of which clients a service has a backend in use, one that takes
// new flows. Of a service that is not there it is neither.
func (p *Proxy) Serving(service string) Serving {
	g := p.governor
	g.mu.Lock()
	defer g.mu.Unlock()
	if n := g.governed[service]; n != nil {
		return n.serving
	}
	return Serving{}
}

// serves is Serving, of states by backend.
func (s *Service) serves(states []balance.State) Serving {
	if s.original() {
		return Serving{IPv4: true, IPv6: true}
	}
	var all Serving
	for i, b := range s.Backends {
		if !states[i].Up || states[i].Weight == 0 {
			continue
		}
		v4 := sys.Family(b.Addr.Addr()) == unix.AF_INET
		all.IPv4 = all.IPv4 || v4 || s.Source == Host
		all.IPv6 = all.IPv6 || !v4 || s.Source == Host
	}
	return all
}
