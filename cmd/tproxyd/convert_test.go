package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"net/netip"
	"reflect"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/tproxyd/tproxyd/config"
	"github.com/tproxyd/tproxyd/internal/balance"
	"github.com/tproxyd/tproxyd/internal/discovery"
	"github.com/tproxyd/tproxyd/internal/golden"
	"github.com/tproxyd/tproxyd/proxy"
)

// enum returns the values of the constants of a string type of the package
// config, from its source: a new one is not to be forgotten here.
func enum(t *testing.T, name string) []string {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "../../config/config.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var values []string
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok {
			return true
		}
		if typ, ok := spec.Type.(*ast.Ident); ok && typ.Name == name {
			text, err := strconv.Unquote(spec.Values[0].(*ast.BasicLit).Value)
			if err != nil {
				t.Fatal(err)
			}
			values = append(values, text)
		}
		return true
	})
	if len(values) < 2 {
		t.Fatalf("config has %d values of type %s: the search has rotted", len(values), name)
	}
	return values
}

func TestConvertEnums(t *testing.T) {
	known := config.Service{Name: "web", Protocol: config.ProtocolTCP, Mode: config.ModeVIP, Source: config.SourceHost}
	for _, protocol := range enum(t, "Protocol") {
		for _, mode := range enum(t, "Mode") {
			for _, source := range enum(t, "Source") {
				service := known
				service.Protocol, service.Mode, service.Source = config.Protocol(protocol), config.Mode(mode), config.Source(source)
				p, err := toProxy(&config.Config{Services: []config.Service{service}}, nil)
				if err != nil {
					t.Errorf("%s, %s, %s: %v", protocol, mode, source, err)
					continue
				}
				s := p.Services[0]
				if s.Protocol.String() != protocol || s.Mode.String() != mode || s.Source.String() != source {
					t.Errorf("%s, %s, %s became %v, %v, %v", protocol, mode, source, s.Protocol, s.Mode, s.Source)
				}
			}
		}
	}
	sctp, tunnel, nobody := known, known, known
	sctp.Protocol, tunnel.Mode, nobody.Source = "sctp", "tunnel", "nobody"
	for _, s := range []config.Service{sctp, tunnel, nobody} {
		if p, err := toProxy(&config.Config{Services: []config.Service{s}}, nil); err == nil {
			t.Errorf("%q, %q, %q became %+v", s.Protocol, s.Mode, s.Source, p)
		}
	}
}

func TestConvertBalance(t *testing.T) {
	for _, algorithm := range enum(t, "Algorithm") {
		for _, hash := range enum(t, "Hash") {
			service := config.Service{
				Name: "web", Protocol: config.ProtocolTCP, Mode: config.ModeVIP, Source: config.SourceHost,
				Balance: config.Algorithm(algorithm), Hash: config.Hash(hash),
			}
			p, err := toProxy(&config.Config{Services: []config.Service{service}}, nil)
			if err != nil {
				t.Errorf("%s, %s: %v", algorithm, hash, err)
				continue
			}
			if s := p.Services[0]; s.Balance.String() != algorithm || s.Hash.String() != hash {
				t.Errorf("%s, %s became %v, %v", algorithm, hash, s.Balance, s.Hash)
			}
			magic, none := service, service
			magic.Balance, none.Hash = "magic", "none"
			for _, s := range []config.Service{magic, none} {
				if p, err := toProxy(&config.Config{Services: []config.Service{s}}, nil); err == nil {
					t.Errorf("%q, %q became %+v", s.Balance, s.Hash, p)
				}
			}
		}
	}
}

// TestBalanceLimits holds that what the file may say is what can be balanced:
// no more, or a reload fails late, and no less.
func TestBalanceLimits(t *testing.T) {
	for _, tt := range []struct {
		size, weight int
		ok           bool
	}{
		{3, 0, true},
		{balance.DefaultTableSize, 1, true},
		{balance.MaxTableSize, balance.MaxWeight, true},
		{2, 1, false},
		{4, 1, false},
		{balance.MaxTableSize + 1, 1, false},
		{5_000_023, 1, false}, // prime
		{3, -1, false},
		{3, balance.MaxWeight + 1, false},
	} {
		text := strings.Replace(good, "listen", fmt.Sprintf("balance = \"maglev\"\nmaglev_table_size = %d\nlisten", tt.size), 1)
		_, fromFile := config.Parse("limits.toml", fmt.Appendf([]byte(text), "weight = %d\n", tt.weight))
		_, fromPool := balance.NewPool(balance.Config{
			Algorithm: balance.Maglev, TableSize: tt.size, Members: []balance.Member{{Name: "a", Weight: tt.weight}},
		})
		if (fromFile == nil) != tt.ok || (fromPool == nil) != tt.ok {
			t.Errorf("table size %d, weight %d: file %v, pool %v", tt.size, tt.weight, fromFile, fromPool)
		}
	}
}

// TestConvertAccess switches records off by log.access alone, and knows a sink
// for all other values.
func TestConvertAccess(t *testing.T) {
	a, err := newAccessLog(&output{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer a.close()
	for _, access := range enum(t, "Access") {
		p, err := toProxy(&config.Config{Log: config.Log{Access: config.Access(access)}}, nil)
		if err != nil {
			t.Fatal(err)
		}
		a.current.Store(nil)
		a.set(config.Access(access))
		if off := access == "off"; p.Records == off || (a.current.Load() == nil) != off {
			t.Errorf("log.access = %q: records %v, sink %v", access, p.Records, a.current.Load())
		}
	}
}

const everything = `
[daemon]
workers = 3
max_connections = 4
max_flows = 14
drain_timeout = "5s"
mark = 6
[[service]]
name = "web"
mode = "vip"
listen = ["203.0.113.10:80-81", "[2001:db8::10]:443"]
source = "prefer-client"
connect_timeout = "7s"
idle_timeout = "8s"
half_close_timeout = "9s"
max_lifetime = "10s"
keepalive = "11s"
user_timeout = "12s"
retries = 7
max_connections = 13
balance = "maglev"
hash = "client-ip"
maglev_table_size = 101
hash_seed = 20
on_backend_down = "cut"
panic = "open"
queue_size = 30
queue_timeout = "31s"
resolve_interval = "32s"
proxy_protocol = "accept-from"
proxy_protocol_from = ["198.18.0.0/16"]
proxy_protocol_timeout = "33s"
send_proxy = "v2"
client_hello_timeout = "34s"
client_hello_max = 3500
[service.admission]
allow = ["198.18.0.0/15"]
deny = ["198.18.36.0/24"]
max_connections_per_client = 37
rate_per_client = 38.5
rate_burst = 39
client_prefix_ipv4 = 24
client_prefix_ipv6 = 56
max_clients = 40
[service.health]
type = "tcp"
interval = "41s"
rise = 42
fall = 43
initial = "up"
[service.ejection]
failures = 44
base_time = "45s"
max_time = "46s"
max_ejected_percent = 47
[service.shadow]
address = "198.18.2.9:8443"
percent = 51
direction = "both"
compare = true
linger = "52s"
[[service.route]]
name = "api"
sni = ["api.example.org"]
alpn = ["h2"]
[[service.route.backend]]
address = "api.internal:8443"
weight = 48
max_connections = 49
[[service.route.backend]]
srv = "_https._tcp.example.org"
[[service.backend]]
address = "198.18.2.2:8443"
weight = 21
[[service.backend]]
name = "six"
address = "[2001:db8:2::2]:8443"
weight = 0
backup = true
[[service]]
name = "egress"
mode = "intercept"
listen = ["0.0.0.0:15001"]
[[service]]
name = "dns"
protocol = "udp"
mode = "intercept"
listen = ["0.0.0.0:15001"]
source = "prefer-client"
idle_timeout = "15s"
unreplied_timeout = "14s"
max_lifetime = "16s"
max_flows = 17
responses = 18
requests = 19
balance = "maglev"
hash = "client-ip"
maglev_table_size = 103
hash_seed = 22
on_backend_down = "cut"
proxy_protocol = "require"
proxy_protocol_from = ["198.18.0.0/16"]
send_proxy = "v2"
[service.admission]
deny = ["198.18.36.0/24"]
[service.ejection]
failures = 50
[service.shadow]
address = "[2001:db8::9]:53"
[[service.backend]]
address = "198.18.2.53:53"
`

// TestConvertAll loses no setting on the way to the data plane.
func TestConvertAll(t *testing.T) {
	c, err := config.Parse("everything.toml", []byte(everything))
	if err != nil {
		t.Fatal(err)
	}
	endpoint := func(addr string) discovery.Endpoint { return discovery.Endpoint{Addr: netip.MustParseAddrPort(addr)} }
	second := endpoint("[2001:db8:2::9]:8443")
	second.Weight, second.Backup = 51, true
	p, err := toProxy(c, answers{
		{Host: "api.internal", Port: 8443}: {Endpoints: []discovery.Endpoint{
			endpoint("198.18.2.8:8443"), endpoint("[2001:db8:2::8]:8443"),
		}},
		{SRV: "_https._tcp.example.org"}: {Endpoints: []discovery.Endpoint{second}},
	})
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	describe(&b, "", reflect.ValueOf(p))
	golden.Compare(t, "convert.golden", b.String())
	ofTCP := []string{
		"Discovered", "Routes", "ConnectTimeout", "HalfCloseTimeout", "Keepalive", "UserTimeout", "Retries", "MaxConnections",
		"QueueSize", "QueueTimeout", "ProxyTimeout", "HelloTimeout", "HelloMax",
	}
	ofUDP := []string{"UnrepliedTimeout", "MaxFlows", "Responses", "Requests"}
	for i, want := range map[int][]string{
		0: append([]string{"Protocol", "Mode"}, ofUDP...), // TCP and VIP are 0
		2: ofTCP,
	} {
		if diff := cmp.Diff(want, unset(reflect.ValueOf(p.Services[i]))); diff != "" {
			t.Errorf("fields of service %q that the configuration does not set (-want +got):\n%s", p.Services[i].Name, diff)
		}
	}
	if zero := unset(reflect.ValueOf(p)); len(zero) > 0 {
		t.Errorf("fields that the configuration does not set: %v", zero)
	}
	if p.Services[1].Mode != proxy.Intercept || len(p.Services[1].Backends) != 0 {
		t.Errorf("second service: %+v", p.Services[1])
	}
}

// describe writes a value, one field a line.
func describe(b *strings.Builder, path string, v reflect.Value) {
	if _, ok := reflect.TypeAssert[fmt.Stringer](v); ok || v.Kind() != reflect.Struct && v.Kind() != reflect.Slice && (v.Kind() != reflect.Pointer || v.IsNil()) {
		fmt.Fprintf(b, "%s = %v\n", path, v)
		return
	}
	if v.Kind() == reflect.Pointer && !v.IsNil() {
		describe(b, path, v.Elem())
		return
	}
	if v.Kind() == reflect.Slice {
		for i := range v.Len() {
			describe(b, fmt.Sprintf("%s[%d]", path, i), v.Index(i))
		}
		return
	}
	for i := range v.NumField() {
		describe(b, path+"."+v.Type().Field(i).Name, v.Field(i))
	}
}

// unset names the fields of a struct that are zero.
func unset(v reflect.Value) []string {
	var names []string
	for i := range v.NumField() {
		if v.Field(i).IsZero() {
			names = append(names, v.Type().Field(i).Name)
		}
	}
	return names
}
