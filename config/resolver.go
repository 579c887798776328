package config

import (
	"net/netip"
	"strings"
	"time"
)

// portDNS is the port of servers that are given without, RFC 1035.
const portDNS = 53

// readResolver reads [resolver].
func (t table) readResolver() Resolver {
	interval := span{least: 100 * time.Millisecond, most: 24 * time.Hour}
	res := Resolver{
		Timeout:     t.duration("timeout", span{least: 10 * time.Millisecond, most: time.Minute}),
		MinInterval: t.duration("min_interval", interval),
		MaxInterval: t.duration("max_interval", interval),
	}
	if _, given := t.values["min_interval"]; !given && res.MaxInterval > 0 {
		res.MinInterval = min(res.MinInterval, res.MaxInterval)
	}
	res.MaxInterval = t.notBelow("max_interval", res.MaxInterval, "min_interval", res.MinInterval)
	if _, given := t.values["servers"]; !given {
		return res
	}
	items, _ := t.list("servers")
	lines := make(map[netip.AddrPort]int)
	for _, item := range items {
		addr, bad := parseServer(item.text)
		if bad != nil {
			t.r.failf(item.at, bad.remedy, "%s", bad.msg)
			continue
		}
		if line, taken := lines[addr]; taken {
			t.r.failf(item.at, "list every server once", "%s is the server at line %d too", addr, line)
		}
		lines[addr] = item.at.line
		res.Servers = append(res.Servers, addr)
	}
	return res
}

// parseServer reads IP:PORT or IP.
func parseServer(s string) (addr netip.AddrPort, bad *mistake) {
	if _, err := netip.ParseAddr(strings.Trim(s, "[]")); err == nil {
		var a netip.Addr
		if a, bad = parseAddr(strings.Trim(s, "[]")); bad == nil {
			addr = netip.AddrPortFrom(a, portDNS)
		}
	} else {
		addr, bad = parseAddrPort(s)
	}
	if bad == nil && addr.Addr().IsUnspecified() {
		bad = &mistake{quote(s) + " is a wildcard", "write the address of one server"}
	}
	return addr, bad
}
