package main

import (
	"errors"
	"fmt"

	"github.com/tproxyd/tproxyd/internal/admin"
	"github.com/tproxyd/tproxyd/internal/health"
	"github.com/tproxyd/tproxyd/proxy"
)

// control is what the API lists and changes of the data plane.
type control struct{ server *server }

// Flows implements admin.Control.
func (c control) Flows(q admin.FlowQuery) admin.FlowList {
	workers := make([]*admin.Collector, len(c.server.proxy.Workers()))
	c.server.proxy.EachFlow(func(worker int) func(*proxy.FlowInfo) {
		collector := admin.NewCollector(q)
		workers[worker] = collector
		return func(f *proxy.FlowInfo) {
			flow := toFlow(f)
			collector.Add(&flow)
		}
	})
	all := admin.NewCollector(q)
	for _, w := range workers {
		all.Merge(w)
	}
	return all.List()
}

func toFlow(f *proxy.FlowInfo) admin.Flow {
	return admin.Flow{
		ID: admin.FlowID(f.ID), Service: f.Service, Protocol: f.Protocol.String(),
		Client: f.Client, Destination: f.Destination, Backend: f.Backend, BackendName: f.BackendName,
		UpstreamSource: f.UpstreamSource, State: admin.FlowState(f.State),
		AgeMS: f.Age.Milliseconds(), IdleMS: f.Idle.Milliseconds(),
		BytesIn: f.BytesIn, BytesOut: f.BytesOut, PathIn: f.PathIn, PathOut: f.PathOut, Worker: f.Worker,
	}
}

// CutFlow implements admin.Control.
func (c control) CutFlow(id uint64) bool { return c.server.proxy.CutFlow(id) }

// SetBackend implements admin.Control.
func (c control) SetBackend(service, backend string, change admin.BackendChange) (admin.Backend, error) {
	if s := c.server.state.Load(); s != nil && *s == stateDraining {
		return admin.Backend{}, admin.ErrDraining
	}
	to := proxy.BackendChange{Weight: change.Weight}
	if change.Weight != nil && *change.Weight == admin.DefaultWeight {
		to.Weight, to.Default = nil, true
	}
	if change.State != "" {
		states := map[admin.AdminState]health.Admin{
			admin.AdminReady: health.Ready, admin.AdminDrain: health.Drain, admin.AdminMaintenance: health.Maintenance,
		}
		state, ok := states[change.State]
		if !ok {
			return admin.Backend{}, fmt.Errorf("%w: state %q is unknown", admin.ErrRefused, string(change.State))
		}
		to.Admin = &state
	}
	switch err := c.server.proxy.SetBackend(service, backend, to); {
	case errors.Is(err, proxy.ErrNoService):
		return admin.Backend{}, admin.ErrNoService
	case errors.Is(err, proxy.ErrNoBackend):
		return admin.Backend{}, admin.ErrNoBackend
	case err != nil:
		return admin.Backend{}, err
	}
	for _, s := range c.server.proxy.Services() {
		for _, b := range s.Backends {
			if s.Name == service && b.Name == backend {
				return toBackend(s, b), nil
			}
		}
	}
	return admin.Backend{}, admin.ErrNoBackend // a reload has just removed it
}

// toBackend is what the API says of a backend of s.
func toBackend(s proxy.ServiceStatus, b proxy.BackendStatus) admin.Backend {
	to := admin.Backend{
		Name: b.Name, Address: b.Addr.String(), Active: int(b.Active), Total: b.Total, Failed: b.Failed,
		Weight: b.Health.Weight, Backup: b.Backup, MaxConnections: b.Limit,
		State: admin.BackendState(b.Health.State.String()), AdminState: admin.AdminState(b.Health.Admin.String()),
		Reason: b.Health.Why, Override: b.Health.Changed,
	}
	if b.Route > 0 {
		to.Route = s.Routes[b.Route-1].Name
	}
	if !b.Addr.IsValid() {
		to.Address, to.Weight = "original destination", 1
	}
	return to
}
