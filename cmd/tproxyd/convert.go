package main

import (
	"fmt"

	"github.com/tproxyd/tproxyd/config"
	"github.com/tproxyd/tproxyd/internal/balance"
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
	algorithms := map[config.Algorithm]balance.Algorithm{
		"":                       balance.RoundRobin, // without backends
		config.BalanceRoundRobin: balance.RoundRobin, config.BalanceLeastConn: balance.LeastConn,
		config.BalanceRandomTwo: balance.RandomTwo, config.BalanceSourceHash: balance.SourceHash,
		config.BalanceMaglev: balance.Maglev, config.BalanceFirst: balance.First,
	}
	hashes := map[config.Hash]balance.Hash{
		"":                   balance.FiveTuple, // of an algorithm without
		config.HashFiveTuple: balance.FiveTuple, config.HashClientIP: balance.ClientIP,
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
		algorithm, ok := algorithms[s.Balance]
		hash, ok2 := hashes[s.Hash]
		if !ok || !ok2 {
			return p, fmt.Errorf("service %q: balance %q or hash %q is unknown to the data plane", s.Name, s.Balance, s.Hash)
		}
		svc := proxy.Service{
			Name: s.Name, Protocol: protocol, Mode: mode, Listen: s.Listen, Source: source,
			Balance: algorithm, Hash: hash, TableSize: s.MaglevTableSize, Seed: s.HashSeed,
			IdleTimeout: s.IdleTimeout, MaxLifetime: s.MaxLifetime,
			ConnectTimeout: s.ConnectTimeout, HalfCloseTimeout: s.HalfCloseTimeout,
			Keepalive: s.Keepalive, UserTimeout: s.UserTimeout,
			Retries: s.Retries, MaxConnections: s.MaxConnections,
			UnrepliedTimeout: s.UnrepliedTimeout, MaxFlows: s.MaxFlows,
			Responses: s.Responses, Requests: s.Requests,
		}
		for _, b := range s.Backends {
			svc.Backends = append(svc.Backends, proxy.Backend{Name: b.Name, Addr: b.Address, Weight: b.Weight, Backup: b.Backup})
		}
		p.Services = append(p.Services, svc)
	}
	return p, nil
}
