package main

import (
	"fmt"

	"github.com/tproxyd/tproxyd/config"
	"github.com/tproxyd/tproxyd/proxy"
)

// toProxy turns a configuration into what the data plane takes. This is the
// only place where the two meet.
func toProxy(c *config.Config) (proxy.Config, error) {
	protocols := map[config.Protocol]proxy.Protocol{config.ProtocolTCP: proxy.TCP, config.ProtocolUDP: proxy.UDP}
	modes := map[config.Mode]proxy.Mode{config.ModeVIP: proxy.VIP, config.ModeIntercept: proxy.Intercept}
	sources := map[config.Source]proxy.Source{
		config.SourceClient: proxy.Client, config.SourceClientIP: proxy.ClientIP,
		config.SourcePreferClient: proxy.PreferClient, config.SourceHost: proxy.Host,
	}
	p := proxy.Config{
		MaxConnections: c.Daemon.MaxConnections,
		MaxFlows:       c.Daemon.MaxFlows,
		DrainTimeout:   c.Daemon.DrainTimeout,
		Mark:           c.Daemon.Mark,
		Records:        c.Log.Access != config.AccessOff,
	}
	for _, s := range c.Services {
		protocol, ok := protocols[s.Protocol]
		mode, ok2 := modes[s.Mode]
		source, ok3 := sources[s.Source]
		if !ok || !ok2 || !ok3 {
			return p, fmt.Errorf("service %q: protocol %q, mode %q or source %q is unknown to the data plane", s.Name, s.Protocol, s.Mode, s.Source)
		}
		svc := proxy.Service{
			Name: s.Name, Protocol: protocol, Mode: mode, Listen: s.Listen, Source: source,
			IdleTimeout: s.IdleTimeout, MaxLifetime: s.MaxLifetime,
			ConnectTimeout: s.ConnectTimeout, HalfCloseTimeout: s.HalfCloseTimeout,
			Keepalive: s.Keepalive, UserTimeout: s.UserTimeout,
			Retries: s.Retries, MaxConnections: s.MaxConnections,
			UnrepliedTimeout: s.UnrepliedTimeout, MaxFlows: s.MaxFlows,
			Responses: s.Responses, Requests: s.Requests,
		}
		for _, b := range s.Backends {
			svc.Backends = append(svc.Backends, proxy.Backend{Name: b.Name, Addr: b.Address})
		}
		p.Services = append(p.Services, svc)
	}
	return p, nil
}
