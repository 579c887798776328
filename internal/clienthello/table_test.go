package clienthello_test

import (
	"cmp"
	"slices"
	"strings"
	"testing"

	"github.com/tproxyd/tproxyd/internal/clienthello"
)

// hello is what a client that asks for this sends, parsed. An empty name or
// list is left out.
func hello(t testing.TB, name string, protocols ...string) *clienthello.Hello {
	t.Helper()
	m := message{version: 0x0303, suites: []byte{0x13, 1}, methods: []byte{0}, extensions: []extension{}}
	if name != "" {
		m.extensions = append(m.extensions, serverName(name))
	}
	if len(protocols) > 0 {
		m.extensions = append(m.extensions, alpn(protocols...))
	}
	h, err := clienthello.Parse(inRecords(m.bytes(), 1<<14))
	if err != nil {
		t.Fatal(err)
	}
	return &h
}

func TestMatch(t *testing.T) {
	table := clienthello.NewTable([]clienthello.Route{
		0: {ALPN: []string{"acme-tls/1"}},
		1: {SNI: []string{"*.example.org"}},
		2: {SNI: []string{"*.eu.Example.org"}},
		3: {SNI: []string{"api.example.org"}, ALPN: []string{"h2", "h3"}},
		4: {SNI: []string{"api.example.org", "www.example.com"}, ALPN: []string{"h3", "http/1.1"}},
		5: {SNI: []string{"www.example.com"}},
		6: {SNI: []string{"www.example.com"}, ALPN: []string{"h2"}},
		7: {SNI: []string{"*.eu.example.org"}, ALPN: []string{"h2"}},
	})
	for _, c := range []struct {
		name      string
		protocols []string
		want      int
	}{
		{"", nil, -1},
		{"", []string{"h2", "acme-tls/1"}, 0},
		{"198.18.1.2", []string{"acme-tls/1"}, 0},
		{"example.org", nil, -1},
		{"www.example.org", nil, 1},
		{"WWW.EXAMPLE.ORG", nil, 1},
		{"a.b.c.example.org", nil, 1},
		{"notexample.org", nil, -1},
		{"eu.example.org", nil, 1},
		{"a.eu.example.org", nil, 2},
		{"a.b.eu.example.org", []string{"h2"}, 2},
		{"api.example.org", nil, 1},
		{"api.example.org", []string{"h2"}, 3},
		{"api.example.org", []string{"http/1.1"}, 4},
		{"api.example.org", []string{"http/1.1", "h3"}, 3},
		{"api.example.org", []string{"acme-tls/1"}, 1},
		{"www.example.com", []string{"h2"}, 5},
		{"www.example.com", []string{"http/1.1", "h2"}, 4},
		{"example.net", []string{"h2"}, -1},
		{"example.net", []string{"acme-tls/1"}, 0},
	} {
		if got := table.Match(hello(t, c.name, c.protocols...)); got != c.want {
			t.Errorf("%q %q: route %d, want %d", c.name, c.protocols, got, c.want)
		}
	}
	if got := clienthello.NewTable(nil).Match(hello(t, "a.b")); got != -1 {
		t.Errorf("no routes: route %d", got)
	}
}

// slowMatch tries all routes. How specific one is, is the length of the
// pattern that matches; a name itself is longer than any "*." pattern for it.
func slowMatch(routes []clienthello.Route, name string, protocols []string) int {
	type match struct{ route, length int }
	var matches []match
	for i, r := range routes {
		if len(r.ALPN) > 0 && !slices.ContainsFunc(r.ALPN, func(p string) bool { return slices.Contains(protocols, p) }) {
			continue
		}
		if len(r.SNI) == 0 {
			matches = append(matches, match{i, 0})
		}
		for _, pattern := range r.SNI {
			suffix, wild := strings.CutPrefix(pattern, "*")
			if !wild && pattern == name || wild && strings.HasSuffix(name, suffix) && len(name) > len(suffix) {
				matches = append(matches, match{i, len(suffix)})
			}
		}
	}
	if len(matches) == 0 {
		return -1
	}
	return slices.MinFunc(matches, func(a, b match) int {
		return cmp.Or(cmp.Compare(b.length, a.length), cmp.Compare(a.route, b.route))
	}).route
}

// TestMatchModel compares with slowMatch on names and routes that often meet.
func TestMatchModel(t *testing.T) {
	g := newGenerator(7)
	name := func() string {
		labels := make([]string, 1+g.IntN(4))
		for i := range labels {
			labels[i] = pick(g, "a", "b")
		}
		return strings.Join(labels, ".")
	}
	some := func() (list []string) {
		for range g.IntN(3) {
			list = append(list, pick(g, "h2", "h3", "x"))
		}
		return list
	}
	found := 0
	for range 3000 {
		routes := make([]clienthello.Route, g.IntN(8))
		for i := range routes {
			routes[i].ALPN = some()
			for range g.IntN(4) {
				routes[i].SNI = append(routes[i].SNI, pick(g, "", "*.")+name())
			}
		}
		table := clienthello.NewTable(routes)
		for range 5 {
			asked, protocols := pick(g, "", name()), some()
			want := slowMatch(routes, asked, protocols)
			if got := table.Match(hello(t, asked, protocols...)); got != want {
				t.Fatalf("%q %q in %+v: route %d, want %d", asked, protocols, routes, got, want)
			}
			if want >= 0 {
				found++
			}
		}
	}
	if found < 5000 {
		t.Errorf("only %d of 15000 have a route: the generator has rotted", found)
	}
}

func BenchmarkMatch(b *testing.B) {
	routes := make([]clienthello.Route, 1000)
	for i := range routes {
		routes[i].SNI = []string{"*.r" + strings.Repeat("x", i%40) + ".example.org"}
	}
	table, h := clienthello.NewTable(routes), hello(b, "www.rxxx.example.org", "h2", "http/1.1")
	b.ReportAllocs()
	for b.Loop() {
		if table.Match(h) != 3 {
			b.Fatal("wrong route")
		}
	}
}
