package config

import (
	"slices"
	"time"
)

// pool is the backends that one flow chooses from.
type pool struct {
	route    string // "" for the default pool
	index    int    // of the route
	backends []Backend
}

// pools gives those of a service that have backends.
func (s Service) pools() []pool {
	var out []pool
	if len(s.Backends) > 0 {
		out = append(out, pool{backends: s.Backends})
	}
	for i, r := range s.Routes {
		if len(r.Backends) > 0 {
			out = append(out, pool{route: r.Name, index: i, backends: r.Backends})
		}
	}
	return out
}

// has reports whether a backend of the service is such a one.
func (s Service) has(such func(Backend) bool) bool {
	return slices.ContainsFunc(s.pools(), func(p pool) bool { return slices.ContainsFunc(p.backends, such) })
}

// poolKeys are the keys of a service that do nothing without backends. It is
// never written to.
var poolKeys = []string{
	"balance", "hash", "maglev_table_size", "hash_seed", "slow_start",
	"on_backend_down", "panic", "queue_size", "queue_timeout", "resolve_interval", kindHealth, kindEjection,
}

// refusePool notes the keys that do nothing without backends.
func (t table) refusePool() {
	for _, key := range poolKeys {
		if t.protocol.serves(key) { // else noted
			t.refuse(key, "remove it, or add a [[service.backend]]", "a service without backends has no such key")
		}
	}
}

// readPool reads how the backends of a service are used and watched.
func (t table) readPool(s *Service) {
	t.readBalance(s)
	s.OnBackendDown = choice(t, "on_backend_down", BackendDownKeep, BackendDownCut)
	t.readHealth(s)
	t.readEjection(s)
	_, checked := t.values[kindHealth]
	_, ejects := t.values[kindEjection]
	if checked || ejects {
		s.Panic = choice(t, "panic", PanicClosed, PanicOpen)
	} else {
		t.refuse("panic", "remove it, or add [service.health] or [service.ejection]", "nothing takes a backend out of use")
	}
	if s.has(Backend.Discovered) {
		s.ResolveInterval = t.duration("resolve_interval", span{zero: true, least: 100 * time.Millisecond, most: 24 * time.Hour})
	} else {
		t.refuse("resolve_interval", "remove it, or give a backend by name", "no backend is given by name")
	}
	if t.protocol != ProtocolUDP {
		t.readQueue(s)
	}
}

// readQueue reads how flows wait for a backend.
func (t table) readQueue(s *Service) {
	s.QueueSize = int(t.integer("queue_size", maxNumber))
	s.QueueTimeout = t.duration("queue_timeout", span{least: time.Millisecond, most: 5 * time.Minute})
	if s.QueueSize == 0 {
		t.idle("queue_timeout", "add queue_size, or remove queue_timeout", "no flow waits, since queue_size is 0")
	}
	if s.QueueSize > 0 && !s.has(func(b Backend) bool { return b.Limit > 0 }) {
		t.r.warnf(t.at("queue_size"), "give a backend max_connections, or remove queue_size", "no flow waits, since no backend has max_connections")
	}
}
