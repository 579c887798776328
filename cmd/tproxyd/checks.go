package main

import (
	"context"
	"fmt"
	"net/netip"
	"sync"

	"github.com/tproxyd/tproxyd/config"
	"github.com/tproxyd/tproxyd/internal/healthcheck"
	"github.com/tproxyd/tproxyd/proxy"
)

// checkTargets are the active checks that c asks for, of the backends that p has.
func checkTargets(c *config.Config, p proxy.Config) ([]healthcheck.Target, error) {
	var all []healthcheck.Target
	for i, s := range c.Services {
		if s.Health == nil {
			continue
		}
		check, err := toCheck(s.Health)
		if err != nil {
			return nil, fmt.Errorf("service %q: health: %w", s.Name, err)
		}
		for _, b := range p.Services[i].Backends {
			t := healthcheck.Target{Service: s.Name, Backend: b.Name, Addr: checkedAt(s.Health, b.Addr), Check: check}
			if s.Mode == config.ModeIntercept {
				t.Mark = c.Daemon.Mark
			}
			if s.Health.Source == config.CheckSourceSpoof {
				t.Spoof = spoofed(s.Health, t.Addr.Addr())
			}
			all = append(all, t)
		}
	}
	return all, nil
}

// checkedAt is the address that checks of a backend go to.
func checkedAt(h *config.Health, backend netip.AddrPort) netip.AddrPort {
	if h.Address.IsValid() {
		backend = netip.AddrPortFrom(h.Address, backend.Port())
	}
	if h.Port != 0 {
		backend = netip.AddrPortFrom(backend.Addr(), h.Port)
	}
	return backend
}

// spoofed is the address that checks of to come from: the one of its family.
func spoofed(h *config.Health, to netip.Addr) netip.Addr {
	for _, a := range h.SpoofAddress {
		if a.Is4() == to.Is4() {
			return a
		}
	}
	return netip.Addr{}
}

func toCheck(h *config.Health) (*healthcheck.Check, error) {
	c := &healthcheck.Check{Interval: h.Interval, FastInterval: h.FastInterval, Jitter: h.Jitter, Timeout: h.Timeout}
	tls := &healthcheck.TLSCheck{ServerName: h.ServerName, Verify: h.Verify, MinDays: h.MinDays}
	switch h.Type {
	case config.HealthTCP:
		c.Type = healthcheck.TCP
	case config.HealthHTTP:
		c.Type = healthcheck.HTTP
		c.HTTP = &healthcheck.HTTPCheck{Method: h.Method, Path: h.Path, Host: h.Host, Body: h.ExpectBody}
		for _, r := range h.ExpectStatus {
			c.HTTP.Status = append(c.HTTP.Status, healthcheck.StatusRange{First: r[0], Last: r[1]})
		}
		if h.TLS {
			c.TLS = tls
		}
	case config.HealthTLS:
		c.Type, c.TLS = healthcheck.TLS, tls
	case config.HealthUDP:
		c.Type, c.UDP = healthcheck.UDP, &healthcheck.UDPCheck{Send: h.Send, Expect: h.Expect}
	case config.HealthDNS:
		query, err := healthcheck.ParseQueryType(h.QueryType)
		if err != nil {
			return nil, err
		}
		rcode, err := healthcheck.ParseRCode(h.ExpectRcode)
		if err != nil {
			return nil, err
		}
		c.Type, c.DNS = healthcheck.DNS, &healthcheck.DNSCheck{Query: h.Query, Type: query, RCode: rcode}
	default:
		return nil, fmt.Errorf("type %q is unknown", string(h.Type))
	}
	return c, nil
}

// startChecks runs the active checks, none yet.
func (d *server) startChecks() {
	d.checks = healthcheck.New(healthcheck.Options{
		Log: d.log.Named("health"), Changing: d.proxy.Changing, Paused: d.proxy.Paused,
		Report: func(r healthcheck.Result) { d.proxy.CheckResult(r.Service, r.Backend, r.OK, r.Detail) },
	})
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = d.checks.Run(ctx) }) // nil, as it ends by its context
	d.stopChecks = func() {
		cancel()
		running.Wait()
	}
}
