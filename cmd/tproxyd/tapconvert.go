package main

import (
	"net/netip"
	"runtime"
	"slices"

	"github.com/tproxyd/tproxyd/config"
	"github.com/tproxyd/tproxyd/proxy"
	"github.com/tproxyd/tproxyd/ringcap"
	"github.com/tproxyd/tproxyd/ringcap/filter"
	"github.com/tproxyd/tproxyd/ringcap/pcapng"
	"github.com/tproxyd/tproxyd/ringcap/tap"
	"golang.org/x/sys/unix"
)

func checkFilter(expression string) error {
	_, err := filter.Compile(expression, filter.Options{})
	return err
}

// toTap turns the tap of a configuration, and the services that p has, into what
// package tap takes. Without a tap that is nothing to do.
func toTap(c *config.Tap, p proxy.Config) (tap.Config, error) {
	if c == nil || !c.Enabled {
		return tap.Config{}, nil
	}
	var err error
	t := tap.Config{
		Interfaces: c.Interfaces, Settle: c.Settle, Endpoints: endpointsOf(p), Names: namesOf(p),
		Ring: tap.Ring{
			BlockSize: int(c.BlockSize), Blocks: c.Blocks, Retire: c.Retire,
			Timestamp: known(&err, "timestamp", c.Timestamp, map[config.TapTimestamp]ringcap.Timestamp{
				config.TimestampSoftware: ringcap.Software, config.TimestampHardware: ringcap.Hardware,
			}),
			Fanout: c.FanoutRings,
			FanoutMode: known(&err, "fanout", c.Fanout, map[config.TapFanout]ringcap.FanoutMode{
				config.FanoutNone: ringcap.FanoutHash, config.FanoutHash: ringcap.FanoutHash, config.FanoutCPU: ringcap.FanoutCPU,
			}),
		},
	}
	if c.Fanout != config.FanoutNone && c.FanoutRings == 0 {
		t.Ring.Fanout = runtime.NumCPU()
	}
	for _, capture := range c.Captures {
		t.Captures = append(t.Captures, toCapture(&err, capture))
	}
	if r := c.Recorder; r != nil {
		t.Recorder = &tap.Recorder{
			Memory: r.Memory, Snap: toSnap(r.Profile, r.SnapLength), Directory: r.Directory,
			Before: r.Before, After: r.After, PerMinute: r.Rate, KeepFiles: r.KeepFiles,
		}
	}
	return t, err
}

func toCapture(err *error, c config.Capture) tap.Capture {
	return tap.Capture{
		Name: c.Name, Directory: c.Directory,
		Selection: tap.Selection{
			Services: c.Services, Backends: c.Backends, Clients: c.Clients, Sample: c.Sample, Filter: c.Filter,
			Protocol: toIPProtocol(string(c.Protocol)), Snap: toSnap(c.Profile, c.SnapLength),
			Direction: known(err, "direction", c.Direction, directions), Strays: true,
		},
		MaxBytes: c.MaxSize, MaxPackets: int64(c.MaxPackets), MaxDuration: c.MaxDuration,
		KeepFiles: c.KeepFiles, KeepBytes: c.KeepSize, Compress: c.Compress,
		// A file that is written over costs less than a new one. One that was
		// compressed is a new one.
		Recycle: c.KeepFiles > 0 && !c.Compress,
		Wire:    c.GSO == config.GSOWire, Manual: !c.Autostart,
	}
}

// directions is never written to.
var directions = map[config.Direction]ringcap.Direction{
	"": ringcap.Both, config.DirectionBoth: ringcap.Both, config.DirectionIn: ringcap.In, config.DirectionOut: ringcap.Out,
}

func toSnap(p config.Profile, length int) int {
	if p == config.ProfileHeaders {
		return tap.SnapHeaders
	}
	return length
}

func toIPProtocol(name string) uint8 {
	switch name {
	case string(config.ProtocolTCP):
		return unix.IPPROTO_TCP
	case string(config.ProtocolUDP):
		return unix.IPPROTO_UDP
	}
	return 0
}

func ipProtocol(p proxy.Protocol) uint8 {
	if p == proxy.UDP {
		return unix.IPPROTO_UDP
	}
	return unix.IPPROTO_TCP
}

// endpointsOf are the addresses that the proxy's packets go to or come from. What is
// intercepted may go anywhere.
func endpointsOf(p proxy.Config) []tap.Endpoint {
	var all []tap.Endpoint
	for _, s := range p.Services {
		protocol := ipProtocol(s.Protocol)
		if s.Mode == proxy.Intercept {
			all = append(all, tap.Endpoint{Protocol: protocol})
			continue
		}
		add := func(a netip.AddrPort) {
			e := tap.Endpoint{Protocol: protocol, Addr: a.Addr().WithZone(""), Port: a.Port()}
			if a.Addr().IsUnspecified() {
				e.Addr = netip.Addr{}
			}
			all = append(all, e)
		}
		for _, a := range placesOf(s) {
			add(a)
		}
	}
	return all
}

// placesOf is where clients of s connect to, and where its backends are.
func placesOf(s proxy.Service) []netip.AddrPort {
	all := slices.Clone(s.Listen)
	for _, b := range s.Backends {
		all = append(all, b.Addr)
	}
	return all
}

// namesOf are the names that files show for addresses, each address once.
func namesOf(p proxy.Config) []pcapng.Name {
	var names []pcapng.Name
	seen := map[netip.Addr]bool{}
	add := func(a netip.Addr, name string) {
		if a = a.WithZone(""); a.IsValid() && !a.IsUnspecified() && !seen[a] {
			seen[a] = true
			names = append(names, pcapng.Name{Addr: a, Name: name})
		}
	}
	for _, s := range p.Services {
		for _, b := range s.Backends {
			if b.Name != b.Addr.String() {
				add(b.Addr.Addr(), b.Name)
			}
		}
		for _, a := range s.Listen {
			add(a.Addr(), s.Name)
		}
	}
	return names
}
