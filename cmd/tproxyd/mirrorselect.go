package main

import (
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strings"

	"github.com/tproxyd/tproxyd/config"
	"github.com/tproxyd/tproxyd/proxy"
	"github.com/tproxyd/tproxyd/ringcap/filter"
	"github.com/tproxyd/tproxyd/zcsend/encap"
	"github.com/tproxyd/tproxyd/zcsend/mirror"
	"golang.org/x/net/bpf"
)

// toMirror is a [[mirror]] of the user's engine.
func toMirror(m config.Mirror) mirror.Config {
	return mirror.Config{
		Name: m.Name, Interface: m.ToInterface,
		Collector: m.Collector, Kind: encap.Kind(m.Encapsulation), ID: m.ID,
		Snap: m.SnapLength, Rate: m.Rate,
	}
}

// exclusions say what no mirror may see: what any of them sends to a collector.
func exclusions(all []config.Mirror) ([]string, error) {
	var out []string
	for _, m := range all {
		e, err := toMirror(m).Exclusion()
		if err != nil {
			return nil, err
		}
		if e != "" && !slices.Contains(out, "not "+e) {
			out = append(out, "not "+e)
		}
	}
	return out, nil
}

// expressionOf says which packets m takes. Its own filter comes last: "vlan" in
// it changes what stands behind.
func expressionOf(m config.Mirror, services []proxy.Service, excluded []string) string {
	parts := slices.Clone(excluded)
	var legs []string
	for _, s := range services {
		if slices.Contains(m.Services, s.Name) {
			legs = append(legs, endpoints(s)...)
		}
	}
	if len(legs) > 0 {
		parts = append(parts, "("+strings.Join(legs, " or ")+")")
	}
	if m.Filter != "" {
		parts = append(parts, "("+m.Filter+")")
	}
	return strings.Join(parts, " and ")
}

// endpoints says what the packets of a service have to do with.
func endpoints(s proxy.Service) (out []string) {
	for _, a := range placesOf(s) {
		if e := portOf(s.Protocol, a); a.IsValid() && !slices.Contains(out, e) {
			out = append(out, e)
		}
	}
	return out
}

func portOf(protocol proxy.Protocol, a netip.AddrPort) string {
	ip := a.Addr().Unmap().WithZone("")
	port := fmt.Sprintf("%s port %d", protocol, a.Port())
	switch {
	case ip.IsUnspecified() && ip.Is4():
		return "(ip and " + port + ")"
	case ip.IsUnspecified():
		return "(ip6 and " + port + ")"
	}
	return fmt.Sprintf("(host %s and %s)", ip, port)
}

// programOf compiles the expression of m.
func programOf(m config.Mirror, expression string) ([]bpf.RawInstruction, error) {
	options := filter.Options{Metadata: true}
	if m.Engine == config.EngineKernel {
		options.Snap = math.MaxUint32 // what cls_bpf takes for a match
	}
	// Alone first: it must not take the rest apart by its parentheses.
	p, err := filter.Compile(m.Filter, options)
	if err != nil {
		return nil, fmt.Errorf("filter of mirror %q: %w", m.Name, err)
	}
	if expression != m.Filter {
		p, err = filter.Compile(expression, options)
	}
	if err != nil {
		return nil, fmt.Errorf("mirror %q, compile %q: %w", m.Name, expression, err)
	}
	return p, nil
}
