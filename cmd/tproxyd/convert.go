package main

import (
	"fmt"

	"github.com/tproxyd/tproxyd/config"
	"github.com/tproxyd/tproxyd/internal/admission"
	"github.com/tproxyd/tproxyd/internal/balance"
	"github.com/tproxyd/tproxyd/internal/health"
	"github.com/tproxyd/tproxyd/proxy"
)

// toProxy turns a configuration, and what the names in it have been found to
// stand for, into what the data plane takes. This is the only place where the
// two meet.
func toProxy(c *config.Config, found answers) (proxy.Config, error) {
	p := proxy.Config{
		MaxConnections: c.Daemon.MaxConnections,
		MaxFlows:       c.Daemon.MaxFlows,
		DrainTimeout:   c.Daemon.DrainTimeout,
		Mark:           c.Daemon.Mark,
		Records:        c.Log.Access != config.AccessOff,
	}
	for _, s := range c.Services {
		svc, err := toService(s, found)
		if err != nil {
			return p, fmt.Errorf("service %q: %w", s.Name, err)
		}
		p.Services = append(p.Services, svc)
	}
	return p, nil
}

func toService(s config.Service, found answers) (proxy.Service, error) {
	svc := proxy.Service{
		Name: s.Name, Listen: s.Listen,
		TableSize: s.MaglevTableSize, Seed: s.HashSeed,
		IdleTimeout: s.IdleTimeout, MaxLifetime: s.MaxLifetime,
		ConnectTimeout: s.ConnectTimeout, HalfCloseTimeout: s.HalfCloseTimeout,
		Keepalive: s.Keepalive, UserTimeout: s.UserTimeout,
		Retries: s.Retries, MaxConnections: s.MaxConnections,
		QueueSize: s.QueueSize, QueueTimeout: s.QueueTimeout,
		UnrepliedTimeout: s.UnrepliedTimeout, MaxFlows: s.MaxFlows,
		Responses: s.Responses, Requests: s.Requests,
		ProxyFrom: s.ProxyProtocolFrom, ProxyTimeout: s.ProxyProtocolTimeout,
		HelloTimeout: s.ClientHelloTimeout, HelloMax: s.ClientHelloMax,
		CutOnDown: s.OnBackendDown == config.BackendDownCut,
		Admission: toAdmission(s.Admission),
		Health:    toPolicy(s),
		Shadow:    toShadow(s.Shadow),
	}
	if err := convertEnums(s, &svc); err != nil {
		return svc, err
	}
	svc.Default = len(s.Backends) > 0
	addBackends(&svc, s, s.Backends, found)
	for _, r := range s.Routes {
		svc.Routes = append(svc.Routes, proxy.Route{Name: r.Name, SNI: r.SNI, ALPN: r.ALPN})
		addBackends(&svc, s, r.Backends, found)
	}
	return svc, nil
}

// convertEnums turns the words of s into the constants of svc.
func convertEnums(s config.Service, svc *proxy.Service) (err error) {
	svc.Protocol = known(&err, "protocol", s.Protocol, map[config.Protocol]proxy.Protocol{
		config.ProtocolTCP: proxy.TCP, config.ProtocolUDP: proxy.UDP,
	})
	svc.Mode = known(&err, "mode", s.Mode, map[config.Mode]proxy.Mode{
		config.ModeVIP: proxy.VIP, config.ModeIntercept: proxy.Intercept,
	})
	svc.Source = known(&err, "source", s.Source, map[config.Source]proxy.Source{
		config.SourceClient: proxy.Client, config.SourceClientIP: proxy.ClientIP,
		config.SourcePreferClient: proxy.PreferClient, config.SourceHost: proxy.Host,
	})
	svc.Balance = known(&err, "balance", s.Balance, map[config.Algorithm]balance.Algorithm{
		"":                       balance.RoundRobin, // without backends
		config.BalanceRoundRobin: balance.RoundRobin, config.BalanceLeastConn: balance.LeastConn,
		config.BalanceRandomTwo: balance.RandomTwo, config.BalanceSourceHash: balance.SourceHash,
		config.BalanceMaglev: balance.Maglev, config.BalanceFirst: balance.First,
	})
	svc.Hash = known(&err, "hash", s.Hash, map[config.Hash]balance.Hash{
		"":                   balance.FiveTuple, // of an algorithm without
		config.HashFiveTuple: balance.FiveTuple, config.HashClientIP: balance.ClientIP,
	})
	svc.AcceptProxy = known(&err, "proxy_protocol", s.ProxyProtocol, map[config.ProxyProtocol]proxy.ProxyProtocol{
		"": proxy.ProxyOff, config.ProxyProtocolOff: proxy.ProxyOff,
		config.ProxyProtocolRequire: proxy.ProxyRequire, config.ProxyProtocolAcceptFrom: proxy.ProxyAcceptFrom,
	})
	svc.SendProxy = known(&err, "send_proxy", s.SendProxy, map[config.SendProxy]int{
		"": 0, config.SendProxyOff: 0, config.SendProxyV1: 1, config.SendProxyV2: 2,
	})
	if s.Shadow != nil {
		svc.Shadow.Direction = known(&err, "direction", s.Shadow.Direction, map[config.ShadowDirection]proxy.ShadowDirection{
			config.ShadowIn: proxy.ShadowIn, config.ShadowOut: proxy.ShadowOut, config.ShadowBoth: proxy.ShadowBoth,
		})
	}
	return err
}

// toShadow is the shadow of a service, but for its direction.
func toShadow(s *config.Shadow) *proxy.Shadow {
	if s == nil {
		return nil
	}
	return &proxy.Shadow{Address: s.Address, Percent: s.Percent, Compare: s.Compare, Linger: s.Linger}
}

// known looks a word up that the configuration has checked. If the two do not
// agree on what there is, err tells.
func known[W ~string, T any](err *error, key string, word W, values map[W]T) T {
	v, ok := values[word]
	if !ok && *err == nil {
		*err = fmt.Errorf("%s %q is unknown to the data plane", key, string(word))
	}
	return v
}

// addBackends adds the backends of a pool, which is that of the last route of
// svc, or the default one without routes.
func addBackends(svc *proxy.Service, s config.Service, pool []config.Backend, found answers) {
	for _, b := range pool {
		backend := proxy.Backend{
			Name: b.Name, Addr: b.Address, Weight: b.Weight, Backup: b.Backup, Limit: b.Limit, Route: len(svc.Routes),
		}
		if !b.Discovered() {
			svc.Backends = append(svc.Backends, backend)
			continue
		}
		svc.Discovered = true
		for _, e := range found.of(queryOf(s, b)).Endpoints {
			one := backend
			one.Name, one.Addr = b.Name+"/"+e.Addr.String(), e.Addr
			one.Backup = b.Backup || e.Backup
			if e.Weight > 0 {
				one.Weight = e.Weight
			}
			svc.Backends = append(svc.Backends, one)
		}
	}
}

func toAdmission(a *config.Admission) *admission.Config {
	if a == nil {
		return nil
	}
	return &admission.Config{
		Allow: a.Allow, Deny: a.Deny,
		MaxPerClient: a.MaxConnectionsPerClient, Rate: a.RatePerClient, Burst: a.RateBurst,
		Bits4: a.ClientPrefixIPv4, Bits6: a.ClientPrefixIPv6, MaxClients: a.MaxClients,
	}
}

// toPolicy is by what rules the backends of s are in use.
func toPolicy(s config.Service) health.Policy {
	p := health.Policy{SlowStart: s.SlowStart, PanicOpen: s.Panic == config.PanicOpen}
	if h := s.Health; h != nil {
		p.Checked, p.Rise, p.Fall, p.InitialUp = true, h.Rise, h.Fall, h.Initial == config.InitialUp
	}
	if e := s.Ejection; e != nil {
		p.Failures, p.EjectBase, p.EjectMax, p.MaxEjectedPercent = e.Failures, e.BaseTime, e.MaxTime, e.MaxEjectedPercent
	}
	return p
}
