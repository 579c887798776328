package config

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// What a ClientHello may take up. The most is what is read of a flow before
// anything is sent on.
const (
	minClientHello = 512
	maxClientHello = 61440
)

// readRoutes reads every [[service.route]] and what goes with them.
func (r *reader) readRoutes(t table, s *Service, taken map[string]int) {
	if t.protocol == ProtocolUDP { // noted
		return
	}
	if isEmpty(t.values[kindRoute]) {
		for _, key := range []string{"client_hello_timeout", "client_hello_max"} {
			t.refuse(key, "remove it, or add a [[service.route]]", "a service without routes has no such key")
		}
		return
	}
	s.ClientHelloTimeout = t.duration("client_hello_timeout", span{least: 10 * time.Millisecond, most: 5 * time.Minute})
	s.ClientHelloMax = int(t.between("client_hello_max", minClientHello, maxClientHello))
	lines := make(map[string]int)
	var places []table
	for _, rt := range t.tables(kindRoute) {
		route := Route{Name: rt.ownName(lines, "route", "route of a service")}
		if route.Name != "" {
			rt.name = fmt.Sprintf("%s route %q", t.name, route.Name)
		}
		rt.checkKeys()
		route.SNI, route.ALPN = rt.patterns("sni", sniPattern), rt.patterns("alpn", func(s string) (string, *mistake) { return s, alpnName(s) })
		if isEmpty(rt.values["sni"]) && isEmpty(rt.values["alpn"]) {
			r.failf(rt.here(), "add "+rt.field("sni").example()+" or "+rt.field("alpn").example(), "the route has neither sni nor alpn")
		}
		route.Backends = r.pool(rt, taken)
		if isEmpty(rt.values[kindBackend]) {
			r.failf(rt.here(), "add a [[service.route.backend]] with its address", "the route has no backend")
		}
		s.Routes, places = append(s.Routes, route), append(places, rt)
		rt.checkShadowed(s.Routes, places)
	}
}

// patterns gives what a key of a route lists, nil for nothing.
func (t table) patterns(key string, parse func(string) (string, *mistake)) []string {
	if _, given := t.values[key]; !given {
		return nil
	}
	items, _ := t.list(key)
	var out []string
	seen := make(map[string]int)
	for _, item := range items {
		p, bad := parse(item.text)
		if bad != nil {
			t.r.failf(item.at, bad.remedy, "%s", bad.msg)
			continue
		}
		if line, taken := seen[p]; taken {
			t.r.failf(item.at, "list it once", "%s is at line %d too", quote(p), line)
			continue
		}
		seen[p] = item.at.line
		out = append(out, p)
	}
	return out
}

// checkShadowed notes the patterns of the last route whose flows an earlier
// route takes all: of equally specific ones the first that matches is used.
func (t table) checkShadowed(routes []Route, places []table) {
	last := routes[len(routes)-1]
	for i, r := range routes[:len(routes)-1] {
		if len(r.ALPN) > 0 && (len(last.ALPN) == 0 || slices.ContainsFunc(last.ALPN, func(p string) bool { return !slices.Contains(r.ALPN, p) })) {
			continue
		}
		const remedy = "remove one of them, or put the route with the narrower alpn first"
		other := fmt.Sprintf("route %q at line %d", r.Name, places[i].node.line)
		if len(r.SNI) == 0 && len(last.SNI) == 0 && len(r.ALPN) > 0 && len(last.ALPN) > 0 {
			t.r.failf(t.at("alpn"), remedy, "no flow gets here, %s takes them all", other)
		}
		for _, p := range last.SNI {
			if slices.Contains(r.SNI, p) {
				t.r.failf(t.at("sni"), remedy, "no flow gets here by %s, %s takes them all", quote(strings.ToLower(p)), other)
			}
		}
	}
}
