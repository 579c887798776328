package main

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/tproxyd/tproxyd/config"
	"github.com/tproxyd/tproxyd/proxy"
)

func TestExpressionOf(t *testing.T) {
	services := []proxy.Service{
		{
			Name: "web", Protocol: proxy.TCP,
			Listen: []netip.AddrPort{netip.MustParseAddrPort("203.0.113.10:443"), netip.MustParseAddrPort("[::]:443")},
			Backends: []proxy.Backend{
				{Addr: netip.MustParseAddrPort("198.18.2.2:8443")},
				{Addr: netip.MustParseAddrPort("198.18.2.2:8443"), Route: 1},
				{Addr: netip.MustParseAddrPort("[fe80::2%eth0]:1")},
			},
		},
		{Name: "dns", Protocol: proxy.UDP, Listen: []netip.AddrPort{netip.MustParseAddrPort("0.0.0.0:53")}, Backends: []proxy.Backend{{}}},
	}
	const web = "((host 203.0.113.10 and tcp port 443) or (ip6 and tcp port 443) or (host 198.18.2.2 and tcp port 8443) or (host fe80::2 and tcp port 1))"
	for want, m := range map[string]config.Mirror{
		"":                                {},
		"(vlan 5)":                        {Filter: "vlan 5"},
		web:                               {Services: []string{"web"}},
		"((ip and udp port 53)) and (ip)": {Services: []string{"dns"}, Filter: "ip"},
	} {
		got := expressionOf(m, services, nil)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		for _, engine := range []config.Engine{config.EngineUser, config.EngineKernel} {
			m.Engine = engine
			if p, err := programOf(m, got); err != nil || engine == config.EngineKernel && len(p) == 0 {
				t.Errorf("%q for engine %s: %d instructions, %v", got, engine, len(p), err)
			}
		}
	}
}

func TestExclusionsComeFirst(t *testing.T) {
	all := []config.Mirror{
		{Name: "a", Collector: netip.MustParseAddr("127.0.0.1"), Encapsulation: config.EncapsulationVXLAN},
		{Name: "b", Collector: netip.MustParseAddr("127.0.0.1"), Encapsulation: config.EncapsulationVXLAN, ID: 2},
		{Name: "c", ToInterface: "eth1", Filter: "tcp"},
	}
	excluded, err := exclusions(all)
	if err != nil {
		t.Fatal(err)
	}
	want := "not (host 127.0.0.1 and host 127.0.0.1 and (ip proto 17 or ip proto 1)) and (tcp)"
	if diff := cmp.Diff(want, expressionOf(all[2], nil, excluded)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
