package main

import (
	"errors"
	"io"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/tproxyd/tproxyd/config"
	"github.com/tproxyd/tproxyd/internal/admin"
	"github.com/tproxyd/tproxyd/internal/healthcheck"
	"golang.org/x/net/dns/dnsmessage"
)

var sameAddresses = cmp.Options{
	cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
	cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b }),
}

// TestToCheck has every type with what only it has.
func TestToCheck(t *testing.T) {
	for health, want := range map[string]healthcheck.Check{
		`type = "tcp"`: {Type: healthcheck.TCP},
		`type = "http"
method = "HEAD"
path = "/up"
host = "web.example"
expect_status = "204,300-302"`: {Type: healthcheck.HTTP, HTTP: &healthcheck.HTTPCheck{
			Method: "HEAD", Path: "/up", Host: "web.example", Status: []healthcheck.StatusRange{{First: 204, Last: 204}, {First: 300, Last: 302}},
		}},
		`type = "http"
tls = true
server_name = "web.example"
verify = true
min_days = 7
expect_body = "well"`: {
			Type: healthcheck.HTTP,
			HTTP: &healthcheck.HTTPCheck{Method: "GET", Path: "/", Status: []healthcheck.StatusRange{{First: 200, Last: 399}}, Body: "well"},
			TLS:  &healthcheck.TLSCheck{ServerName: "web.example", Verify: true, MinDays: 7},
		},
		`type = "tls"
min_days = 3`: {Type: healthcheck.TLS, TLS: &healthcheck.TLSCheck{MinDays: 3}},
		`type = "udp"
send = "0x00ff"
expect = "pong"`: {Type: healthcheck.UDP, UDP: &healthcheck.UDPCheck{Send: []byte{0, 255}, Expect: []byte("pong")}},
		`type = "dns"
query = "Web.Example"
query_type = "AAAA"
expect_rcode = "NXDOMAIN"`: {Type: healthcheck.DNS, DNS: &healthcheck.DNSCheck{
			Query: "web.example.", Type: dnsmessage.TypeAAAA, RCode: dnsmessage.RCodeNameError,
		}},
	} {
		want.Interval, want.FastInterval, want.Jitter, want.Timeout = 11*time.Second, 12*time.Millisecond, 13, 14*time.Second
		c := parsed(t, vipService("web", "tcp", 80, backendAt("one", "198.18.2.2:80"),
			"[service.health]\ninterval = \"11s\"\nfast_interval = \"12ms\"\njitter = 13\ntimeout = \"14s\"", health))
		got, err := toCheck(c.Services[0].Health)
		if err != nil {
			t.Errorf("%s: %v", health, err)
			continue
		}
		if diff := cmp.Diff(&want, got, sameAddresses); diff != "" {
			t.Errorf("%s (-want +got):\n%s", health, diff)
		}
	}
	for _, typ := range enum(t, "HealthType") {
		if _, err := toCheck(&config.Health{Type: config.HealthType(typ), QueryType: "NS", ExpectRcode: "NOERROR"}); err != nil {
			t.Errorf("type %q: %v", typ, err)
		}
	}
	for _, bad := range []config.Health{
		{Type: "icmp"},
		{Type: config.HealthDNS, QueryType: "ANY", ExpectRcode: "NOERROR"},
		{Type: config.HealthDNS, QueryType: "NS", ExpectRcode: "WHATEVER"},
	} {
		if _, err := toCheck(&bad); err == nil {
			t.Errorf("%+v is taken", bad)
		}
	}
}

func parsed(t *testing.T, text string) *config.Config {
	t.Helper()
	c, err := config.Parse("t.toml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestCheckTargets has the addresses that checks go to and come from.
func TestCheckTargets(t *testing.T) {
	both := backendAt("four", "198.18.2.2:80") + backendAt("six", "[2001:db8:2::2]:80")
	const listen = `
[[service]]
name = "web"
listen = ["203.0.113.10:80", "203.0.113.11:80", "[2001:db8:f::10]:80"]
source = "client-ip"
`
	four := healthcheck.Target{Service: "web", Backend: "four", Addr: netip.MustParseAddrPort("198.18.2.2:80")}
	six := healthcheck.Target{Service: "web", Backend: "six", Addr: netip.MustParseAddrPort("[2001:db8:2::2]:80")}
	at := func(x healthcheck.Target, addr, spoof string) healthcheck.Target {
		if addr != "" {
			x.Addr = netip.MustParseAddrPort(addr)
		}
		if spoof != "" {
			x.Spoof = netip.MustParseAddr(spoof)
		}
		return x
	}
	for name, tt := range map[string]struct {
		text string
		want []healthcheck.Target
	}{
		"none":  {listen + both, nil},
		"plain": {listen + both + healthBy("tcp"), []healthcheck.Target{four, six}},
		"port": {listen + both + healthBy("tcp", "port = 81"), []healthcheck.Target{
			at(four, "198.18.2.2:81", ""), at(six, "[2001:db8:2::2]:81", ""),
		}},
		"address": {listen + both + healthBy("tcp", `address = "198.18.2.9"`), []healthcheck.Target{
			at(four, "198.18.2.9:80", ""), at(six, "198.18.2.9:80", ""),
		}},
		"spoof": {listen + both + healthBy("tcp", `check_source = "spoof"`), []healthcheck.Target{
			at(four, "", "203.0.113.10"), at(six, "", "2001:db8:f::10"),
		}},
		"spoofed address": {listen + both + healthBy("tcp", `check_source = "spoof"`, `spoof_address = ["2001:db8::9", "198.18.9.9"]`), []healthcheck.Target{
			at(four, "", "198.18.9.9"), at(six, "", "2001:db8::9"),
		}},
		// The source is of the family of what is checked.
		"both": {listen + both + healthBy("tcp", `check_source = "spoof"`, `address = "2001:db8::7"`, "port = 7"), []healthcheck.Target{
			at(four, "[2001:db8::7]:7", "2001:db8:f::10"), at(six, "[2001:db8::7]:7", "2001:db8:f::10"),
		}},
	} {
		c := parsed(t, tt.text)
		p, err := toProxy(c, nil)
		if err != nil {
			t.Fatal(err)
		}
		got, err := checkTargets(c, p)
		if err != nil {
			t.Fatal(err)
		}
		for i := range got {
			if got[i].Check == nil {
				t.Errorf("%s: backend %s has no check", name, got[i].Backend)
			}
			got[i].Check = nil
		}
		if diff := cmp.Diff(tt.want, got, sameAddresses); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
	c := parsed(t, "[daemon]\nmark = 99\n"+`
[[service]]
name = "egress"
mode = "intercept"
listen = ["0.0.0.0:15001"]
`+backendAt("one", "198.18.2.2:80")+healthBy("tcp"))
	p, err := toProxy(c, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := checkTargets(c, p); err != nil || len(got) != 1 || got[0].Mark != 99 {
		t.Errorf("checks of an intercept service %+v, %v: want the mark that its rules let pass", got, err)
	}
}

// TestControlErrors has the API told what kind of mistake it is.
func TestControlErrors(t *testing.T) {
	c := parsed(t, "[daemon]\nworkers = 1\n[admin]\nlisten = \"\"\n[[service]]\nname = \"web\"\nsource = \"host\"\nlisten = [\"127.0.0.1:1\"]\n"+
		backendAt("one", "127.0.0.1:9"))
	c.Services[0].Listen[0] = netip.MustParseAddrPort("127.0.0.1:0")
	d, err := newServer("t.toml", c, io.Discard, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.close)
	weight, standard := 7, admin.DefaultWeight
	for _, tt := range []struct {
		service, backend string
		change           admin.BackendChange
		want             error
	}{
		{"web", "one", admin.BackendChange{Weight: &weight}, nil},
		{"wbe", "one", admin.BackendChange{Weight: &weight}, admin.ErrNoService},
		{"web", "two", admin.BackendChange{Weight: &weight}, admin.ErrNoBackend},
		{"web", "one", admin.BackendChange{State: "off"}, admin.ErrRefused},
	} {
		if _, err := d.control.SetBackend(tt.service, tt.backend, tt.change); !errors.Is(err, tt.want) {
			t.Errorf("%s of %s, %+v: %v, want %v", tt.backend, tt.service, tt.change, err, tt.want)
		}
	}
	for _, tt := range []struct {
		change admin.BackendChange
		want   admin.Backend
	}{
		{admin.BackendChange{State: admin.AdminDrain}, admin.Backend{Weight: 7, Override: true, State: admin.BackendDrain, AdminState: admin.AdminDrain, Reason: "set by the API"}},
		{admin.BackendChange{Weight: &standard}, admin.Backend{Weight: 1, Override: true, State: admin.BackendDrain, AdminState: admin.AdminDrain, Reason: "set by the API"}},
		{admin.BackendChange{State: admin.AdminMaintenance}, admin.Backend{Weight: 1, Override: true, State: admin.BackendMaintenance, AdminState: admin.AdminMaintenance, Reason: "set by the API"}},
		{admin.BackendChange{State: admin.AdminReady}, admin.Backend{Weight: 1, State: admin.BackendUp, AdminState: admin.AdminReady}},
	} {
		tt.want.Name, tt.want.Address = "one", "127.0.0.1:9"
		got, err := d.control.SetBackend("web", "one", tt.change)
		if err != nil {
			t.Error(err)
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%+v (-want +got):\n%s", tt.change, diff)
		}
	}
	if d.control.CutFlow(1) {
		t.Error("a flow is cut that never was")
	}
	d.setState(stateDraining)
	if _, err := d.control.SetBackend("web", "one", admin.BackendChange{Weight: &weight}); !errors.Is(err, admin.ErrDraining) {
		t.Errorf("while draining: %v", err)
	}
}
