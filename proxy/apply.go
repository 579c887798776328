package proxy

import (
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/tproxyd/tproxyd/internal/admission"
	"github.com/tproxyd/tproxyd/internal/balance"
	"github.com/tproxyd/tproxyd/internal/clienthello"
	"github.com/tproxyd/tproxyd/internal/sys"
	"golang.org/x/sys/unix"
)

const (
	backlog         = 4096 // cut to net.core.somaxconn by the kernel
	originalBackend = "original"
)

// Apply makes c what the proxy runs, or changes nothing and says why. Flows of
// services that stay go on as they are; flows of services that are gone have
// the drain timeout.
func (p *Proxy) Apply(c Config) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.draining {
		return ErrDraining
	}
	own := newListens(c.Services)
	if err := p.guard.checkBackends(c.Services, own); err != nil {
		return err
	}
	controls := map[string]*admission.Control{}
	for _, s := range c.Services {
		if _, err := balance.NewPool(s.balancing(nil)); err != nil {
			return fmt.Errorf("service %q: %w", s.Name, err)
		}
		if s.Admission == nil {
			continue
		}
		var err error
		if controls[s.Name], err = admission.New(*s.Admission); err != nil {
			return fmt.Errorf("service %q: admission: %w", s.Name, err)
		}
	}
	opened, err := p.openListeners(c.Services)
	if err == nil {
		if err = p.setLimits(c, p.leaving(own)); err != nil {
			opened.close()
		}
	}
	if err != nil {
		p.each(func(w *worker) { w.udp.letGo() })
		return err
	}
	services := make([]*service, len(c.Services))
	sockets := map[listenKey][]int{}
	for i, s := range c.Services {
		services[i] = p.newService(s, c, controls[s.Name])
		for _, key := range s.keys() {
			if sockets[key] = opened.fds[key]; sockets[key] == nil {
				sockets[key] = p.sockets[key]
			}
		}
	}
	p.mark.Store(c.Mark)
	p.guard.listens.Store(&own)
	p.governor.prepare(services)
	p.publish(services)
	p.each(func(w *worker) { w.install(services, sockets, c.DrainTimeout) })
	for _, svc := range services {
		svc.stats.forget(svc.Backends, svc.Discovered)
	}
	p.config, p.sockets = c, sockets
	return nil
}

// publish shows readers services and all counters.
func (p *Proxy) publish(services []*service) {
	v := &view{services: services}
	for _, name := range slices.Sorted(maps.Keys(p.stats)) {
		v.stats = append(v.stats, p.stats[name])
	}
	p.view.Store(v)
}

// opened are the listening sockets that a configuration needs anew, by worker.
type opened struct {
	fds  map[listenKey][]int
	held map[listenKey][]int // those of fds that were there before, see holdUDP
}

func (o *opened) close() {
	for key, fds := range o.fds {
		closeNew(fds, o.held[key])
	}
}

// openListeners opens the sockets of the addresses that are new, for every
// worker, or none.
func (p *Proxy) openListeners(services []Service) (*opened, error) {
	o := &opened{fds: map[listenKey][]int{}, held: map[listenKey][]int{}}
	off := sync.OnceValue(ipv6Off)
	for _, s := range services {
		for _, key := range s.keys() {
			if p.sockets[key] != nil {
				continue
			}
			var err error
			switch {
			case key.addr.Addr().Is6() && off():
				err = fmt.Errorf("IPv6 is switched off on all interfaces: %w", unix.EADDRNOTAVAIL)
			case key.protocol == UDP:
				if p.held[key] == nil {
					p.held[key] = &atomic.Int64{}
				}
				o.held[key] = p.holdUDP(key)
				o.fds[key], err = p.openUDPListener(key, s.Mode == Intercept || key.addr.Addr().IsUnspecified(), o.held[key])
			default:
				o.fds[key], err = openListener(key.addr, len(p.workers), p.overlaps(key))
			}
			if err != nil {
				o.close()
				return nil, fmt.Errorf("service %q: listen on %v: %w", s.Name, key.addr, err)
			}
		}
	}
	return o, nil
}

// keys are the addresses that s listens on.
func (s *Service) keys() []listenKey {
	keys := make([]listenKey, len(s.Listen))
	for i, a := range s.Listen {
		keys[i] = listenKey{s.Protocol, a}
	}
	return keys
}

// overlaps reports whether a listener of ours is on all addresses of the port
// of key where that is one of them, or the other way round. A reload may go
// from one to the other.
func (p *Proxy) overlaps(key listenKey) bool {
	a := key.addr
	for k := range p.sockets {
		o := k.addr
		if k.protocol == key.protocol && o.Port() == a.Port() && o.Addr().Is4() == a.Addr().Is4() &&
			(o.Addr().IsUnspecified() || a.Addr().IsUnspecified()) {
			return true
		}
	}
	return false
}

// ipv6Off reports whether IPv6 is switched off on all interfaces. Transparent
// sockets can be bound all the same, but nothing would come.
func ipv6Off() (off bool) {
	files, _ := filepath.Glob("/proc/sys/net/ipv6/conf/*/disable_ipv6") // the pattern is right
	for _, file := range files {
		switch filepath.Base(filepath.Dir(file)) {
		case "all", "default": // no interfaces
			continue
		}
		value, err := os.ReadFile(file)
		if err != nil || strings.TrimSpace(string(value)) == "0" {
			return false // on, or nobody knows
		}
		off = true
	}
	return off
}

// openListener opens n sockets that share the address a. Unless others of ours
// are in the way, the first try is with a socket that shares with nobody:
// another process that listens there, of whatever user, is found out instead
// of joined.
func openListener(a netip.AddrPort, n int, overlaps bool) ([]int, error) {
	if !overlaps {
		alone, err := sys.ListenTCP(a, 1, false)
		if err != nil {
			return nil, err
		}
		sys.Close(alone)
	}
	var fds []int
	for range n {
		fd, err := sys.ListenTCP(a, backlog, true)
		if err != nil {
			closeNew(fds, nil)
			return nil, err
		}
		fds = append(fds, fd)
	}
	return fds, nil
}

// leaving counts the listening sockets that close when only those of stay are
// left. Those of UDP stay open for their flows.
func (p *Proxy) leaving(stay listens) int {
	n := 0
	for key, fds := range p.sockets {
		if _, ok := stay[key.unzoned()]; !ok && key.protocol == TCP {
			n += len(fds)
		}
	}
	return n
}

// Check tries what the configuration needs of the kernel and of the process's
// capabilities, without opening a listener.
func Check(c Config) error {
	var mark uint32
	for _, s := range c.Services {
		if s.Mode == Intercept {
			mark = c.Mark
		}
	}
	if err := sys.CheckTransparent(mark); err != nil {
		return err
	}
	for _, s := range c.Services {
		for _, a := range s.Listen {
			fd, e := sys.TCPSocket(sys.Family(a.Addr()))
			if e == unix.EAFNOSUPPORT {
				return fmt.Errorf("service %q: listen on %v: %w", s.Name, a, os.NewSyscallError("socket", e))
			}
			if e == 0 {
				sys.Close(fd)
			}
		}
	}
	return nil
}

// newService prepares s for the workers.
func (p *Proxy) newService(s Service, c Config, control *admission.Control) *service {
	st := p.stats[s.Name]
	if st == nil {
		st = newServiceStats(s.Name, len(p.workers))
		p.stats[s.Name] = st
	}
	st.seen[s.Protocol].Store(true)
	if s.Shadow != nil {
		st.shadowed.Store(true)
	}
	svc := &service{Service: s, stats: st, records: c.Records}
	if s.Mode == Intercept {
		svc.mark = c.Mark
	}
	svc.pool, _ = balance.NewPool(s.balancing(st)) // Apply has tried it
	svc.hashes = s.Balance == balance.Maglev || s.Balance == balance.SourceHash
	svc.noDefault = len(s.Routes) > 0 && !s.Default
	for _, b := range s.Backends {
		svc.targets = append(svc.targets, newEndpoint(b.Addr))
	}
	svc.split = s.views(svc.pool)
	if control != nil {
		control.Adopt(st.admission)
	}
	svc.admission, st.admission = control, control
	for _, prefix := range s.ProxyFrom {
		svc.trusted.Insert(prefix)
	}
	if len(s.Routes) > 0 {
		routes := make([]clienthello.Route, len(s.Routes))
		for i, r := range s.Routes {
			routes[i] = clienthello.Route{SNI: r.SNI, ALPN: r.ALPN}
		}
		svc.table = clienthello.NewTable(routes)
	}
	return svc
}

// balancing describes how flows are shared among the backends of s. The flows
// that stats knows of count.
func (s *Service) balancing(stats *serviceStats) balance.Config {
	c := balance.Config{Algorithm: s.Balance, Hash: s.Hash, TableSize: s.TableSize, Seed: s.Seed}
	for _, b := range s.Backends {
		m := balance.Member{Name: b.Name, Weight: b.Weight, Backup: b.Backup, Limit: b.Limit}
		if stats != nil {
			m.Load = &stats.backend(b.Name).load
		}
		c.Members = append(c.Members, m)
	}
	return c
}
