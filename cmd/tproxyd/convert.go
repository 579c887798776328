package main

import (
	"fmt"

	"github.com/tproxyd/tproxyd/config"
	"github.com/tproxyd/tproxyd/proxy"
)

// toProxy turns a configuration into what the data plane takes. This is the
// only place where the two meet.
func toProxy(c *config.Config) (proxy.Config, error) {
	modes := map[config.Mode]proxy.Mode{config.ModeVIP: proxy.VIP, config.ModeIntercept: proxy.Intercept}
	sources := map[config.Source]proxy.Source{
		config.SourceClient: proxy.Client, config.SourceClientIP: proxy.ClientIP,
		config.SourcePreferClient: proxy.PreferClient, config.SourceHost: proxy.Host,
	}
	p := proxy.Config{
		MaxConnections: c.Daemon.MaxConnections,
		DrainTimeout:   c.Daemon.DrainTimeout,
		Mark:           c.Daemon.Mark,
		Records:        c.Log.Access != config.AccessOff,
	}
	for _, s := range c.Services {
		mode, ok := modes[s.Mode]
		source, ok2 := sources[s.Source]
		if !ok || !ok2 {
			return p, fmt.Errorf("service %q: mode %q or source %q is unknown to the data plane", s.Name, s.Mode, s.Source)
		}
		svc := proxy.Service{
			Name: s.Name, Mode: mode, Listen: s.Listen, Source: source,
			ConnectTimeout: s.ConnectTimeout, IdleTimeout: s.IdleTimeout,
			HalfCloseTimeout: s.HalfCloseTimeout, MaxLifetime: s.MaxLifetime,
			Keepalive: s.Keepalive, UserTimeout: s.UserTimeout,
			Retries: s.Retries, MaxConnections: s.MaxConnections,
		}
		for _, b := range s.Backends {
			svc.Backends = append(svc.Backends, proxy.Backend{Name: b.Name, Addr: b.Address})
		}
		p.Services = append(p.Services, svc)
	}
	return p, nil
}
