package proxy

import "net/netip"

// ServiceStatus is a service at one moment.
type ServiceStatus struct {
	Service
	Active, Queued    int64
	Total, Rejected   uint64
	BytesIn, BytesOut uint64
	Backends          []BackendStatus
	Copies            ShadowStatus // of flows, if Shadow is set
}

// ShadowStatus is the shadow of a service at one moment.
type ShadowStatus struct {
	Active        int64
	Total, Failed uint64 // that ended, and that were given up for a cause of the shadow's or of ours
	Mismatches    uint64
	Sent          uint64 // bytes
}

// BackendStatus is a backend at one moment. Its name is "original" and its
// address zero where flows go to their original destination.
type BackendStatus struct {
	Backend
	Health        BackendHealth
	Active        int64
	Total, Failed uint64
}

// WorkerStatus is a worker at one moment.
type WorkerStatus struct {
	ID          int
	Connections int64
	Paused      bool // accepting
}

// Active is the number of flows.
func (p *Proxy) Active() int64 { return p.Connections() + p.Flows() }

// Connections is the number of TCP flows.
func (p *Proxy) Connections() int64 { return p.active.Load() }

// Flows is the number of UDP flows.
func (p *Proxy) Flows() int64 { return p.flows.Load() }

// Services returns the services of the running configuration.
func (p *Proxy) Services() []ServiceStatus {
	var all []ServiceStatus
	for _, svc := range p.view.Load().services {
		s := svc.stats
		st := ServiceStatus{Service: svc.Service, Rejected: s.rejected(), BytesIn: s.bytes(client), BytesOut: s.bytes(upstream)}
		if svc.Protocol == UDP {
			st.Active = s.flows.Load()
			st.Total = s.total(func(sh *shard) uint64 { return sh.udp.flows.Load() })
		} else {
			st.Active = s.active.Load()
			st.Total = s.total(func(sh *shard) uint64 { return sh.accepted.Load() })
		}
		st.Queued = s.queued.Load()
		st.Copies = s.copies()
		backends, states := svc.Backends, p.governor.health(svc.Name)
		if svc.original() {
			backends = []Backend{{Name: originalBackend, Addr: netip.AddrPort{}}}
		}
		for i, b := range backends {
			bs := BackendStatus{Backend: b}
			if i < len(states) { // a reload may be at work
				bs.Health = states[i]
			}
			for _, sh := range s.backend(b.Name).shards {
				bs.Active += sh.active.Load()
				bs.Total += sh.results[resultOK].Load()
				for r := resultOK + 1; r < resultCount; r++ {
					bs.Failed += sh.results[r].Load()
				}
			}
			st.Backends = append(st.Backends, bs)
		}
		all = append(all, st)
	}
	return all
}

// Workers returns the workers.
func (p *Proxy) Workers() []WorkerStatus {
	var all []WorkerStatus
	for _, w := range p.workers {
		all = append(all, WorkerStatus{ID: w.id, Connections: w.stats.flows.Load(), Paused: w.stats.paused.Load()})
	}
	return all
}
