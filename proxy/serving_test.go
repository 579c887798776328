package proxy

import (
	"net/netip"
	"testing"

	"github.com/tproxyd/tproxyd/internal/balance"
	"github.com/tproxyd/tproxyd/internal/health"
	"github.com/tproxyd/tproxyd/internal/lab"
)

// TestServing holds which changes of backends are one of what is served, and
// that each of these is told of.
func TestServing(t *testing.T) {
	told := make(chan struct{}, 100)
	p, err := New(Options{Workers: 1, Serving: func() { told <- struct{}{} }})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	}()
	want := func(when, service string, s Serving, news bool) {
		t.Helper()
		if got := p.Serving(service); got != s {
			t.Errorf("%s: %s serves %+v, want %+v", when, service, got, s)
		}
		if n := len(told); n > 0 != news {
			t.Errorf("%s: told %d times, news: %v", when, n, news)
		}
		for len(told) > 0 {
			<-told
		}
	}
	check := func(backend string, ok bool) { p.CheckResult("web", backend, ok, "") }
	web := vip("web", 80)
	web.Health = health.Policy{Checked: true, Rise: 1, Fall: 1}
	web.Backends = []Backend{
		{Name: "a4", Addr: addrPort(lab.ServerIP4, 1), Weight: 1},
		{Name: "b4", Addr: addrPort(lab.Server2IP4, 1), Weight: 1, Backup: true},
		{Name: "a6", Addr: addrPort(lab.ServerIP6, 1), Weight: 1},
	}
	apply := func(services ...Service) {
		t.Helper()
		if err := p.Apply(Config{Services: services}); err != nil {
			t.Fatal(err)
		}
	}
	apply(web)
	want("all are down", "web", Serving{}, false)
	check("b4", true)
	want("a backup is up", "web", Serving{IPv4: true}, true)
	check("a4", true)
	want("so is another", "web", Serving{IPv4: true}, false)
	check("a6", true)
	want("and one of the other family", "web", Serving{IPv4: true, IPv6: true}, true)
	if err := p.SetBackend("web", "a6", admin(health.Drain)); err != nil {
		t.Fatal(err)
	}
	want("which is drained", "web", Serving{IPv4: true}, true)

	host := web
	host.Source = Host
	apply(host)
	want("backends of any family do", "web", Serving{IPv4: true, IPv6: true}, true)
	apply(web)
	check("a4", false)
	check("b4", false)
	want("the last are down", "web", Serving{}, true)
	web.Health.PanicOpen = true
	apply(web)
	want("all are used as none is up", "web", Serving{IPv4: true}, true)

	original := Service{Name: "original", Mode: Intercept, Balance: balance.RoundRobin, Listen: []netip.AddrPort{addrPort("127.0.0.1", 15001)}}
	apply(original)
	want("backends are not needed", "original", Serving{IPv4: true, IPv6: true}, true)
	want("it is gone", "web", Serving{}, false)
}
