package config

import (
	"maps"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// minimalUDP is the shortest valid file with a UDP service.
const minimalUDP = `
[[service]]
name = "dns"
protocol = "udp"
listen = ["203.0.113.53:53"]
backend = [{ address = "198.18.2.53:53" }]
`

// everythingUDP has no default value.
const everythingUDP = `
[daemon]
max_flows = 70_000
[[service]]
name = "dns"
protocol = "udp"
mode = "intercept"
listen = ["203.0.113.53:53-54"]
source = "prefer-client"
idle_timeout = "40s"
unreplied_timeout = "5s"
max_lifetime = "1h"
max_flows = 1000
responses = 2_147_483_647
requests = 7
balance = "source-hash"
hash_seed = 7
  [[service.backend]]
  weight = 3
  name = "x"
  address = "198.18.2.53:53"
`

func TestParseUDP(t *testing.T) {
	addr := netip.MustParseAddrPort
	tests := map[string]struct {
		text string
		want Service
	}{
		"defaults": {minimalUDP, Service{
			Name:             "dns",
			Protocol:         ProtocolUDP,
			Mode:             ModeVIP,
			Listen:           []netip.AddrPort{addr("203.0.113.53:53")},
			Source:           SourceClient,
			IdleTimeout:      2 * time.Minute,
			UnrepliedTimeout: 30 * time.Second,
			Backends:         []Backend{{Name: "198.18.2.53:53", Address: addr("198.18.2.53:53"), Weight: 1}},
			Balance:          BalanceRoundRobin,
			OnBackendDown:    BackendDownKeep, ProxyProtocol: ProxyProtocolOff, SendProxy: SendProxyOff,
		}},
		"everything": {everythingUDP, Service{
			Name:             "dns",
			Protocol:         ProtocolUDP,
			Mode:             ModeIntercept,
			Listen:           []netip.AddrPort{addr("203.0.113.53:53"), addr("203.0.113.53:54")},
			Source:           SourcePreferClient,
			IdleTimeout:      40 * time.Second,
			MaxLifetime:      time.Hour,
			UnrepliedTimeout: 5 * time.Second,
			MaxFlows:         1000,
			Responses:        1<<31 - 1,
			Requests:         7,
			Backends:         []Backend{{Name: "x", Address: addr("198.18.2.53:53"), Weight: 3}},
			Balance:          BalanceSourceHash,
			OnBackendDown:    BackendDownKeep, ProxyProtocol: ProxyProtocolOff, SendProxy: SendProxyOff,
			HashSeed: 7,
		}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			cfg := mustParse(t, tt.text)
			if diff := cmp.Diff([]Service{tt.want}, cfg.Services, sameAddrs); diff != "" {
				t.Errorf("service (-want +got):\n%s", diff)
			}
			if len(cfg.Warnings) > 0 {
				t.Errorf("warnings: %v", cfg.Warnings)
			}
		})
	}
	if got := mustParse(t, everythingUDP).Daemon.MaxFlows; got != 70_000 {
		t.Errorf("daemon.max_flows is %d, want 70000", got)
	}
}

// TestUnrepliedTimeout has a default that is never above idle_timeout.
func TestUnrepliedTimeout(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"":                         30 * time.Second,
		`idle_timeout = "5s"`:      5 * time.Second,
		`idle_timeout = "30s"`:     30 * time.Second,
		`idle_timeout = "0s"`:      30 * time.Second, // off: nothing is above it
		`idle_timeout = "8760h"`:   30 * time.Second,
		`unreplied_timeout = "0s"`: 0,
		`unreplied_timeout = "2m"`: 2 * time.Minute,
		"unreplied_timeout = \"9m\"\nidle_timeout = \"0s\"":  9 * time.Minute,
		"unreplied_timeout = \"9m\"\nidle_timeout = \"10m\"": 9 * time.Minute,
	} {
		cfg := mustParse(t, strings.Replace(minimalUDP, "listen", text+"\nlisten", 1))
		if got := cfg.Services[0].UnrepliedTimeout; got != want {
			t.Errorf("%q: %v, want %v", text, got, want)
		}
		checkRoundTrip(t, cfg)
	}
}

// TestProtocolsShareAddresses holds that sockets of the two protocols do not
// meet: neither as listeners, nor as backends, nor on the admin address.
func TestProtocolsShareAddresses(t *testing.T) {
	cfg := mustParse(t, `
admin.listen = "127.0.0.1:53"
[[service]]
name = "tcp"
listen = ["203.0.113.53:53", "[2001:db8::53]:53-60"]
backend = [{ address = "198.18.2.53:53" }, { address = "[2001:db8:2::53]:53" }, { address = "127.0.0.1:53" }]
[[service]]
name = "udp"
protocol = "udp"
listen = ["0.0.0.0:53", "[::]:53"]
backend = [{ address = "203.0.113.53:53" }, { address = "[2001:db8::53]:60" }]
`)
	if len(cfg.Warnings) > 0 {
		t.Errorf("warnings: %v", cfg.Warnings)
	}
}

func TestWarningsOfUDP(t *testing.T) {
	cfg := mustParse(t, `
[[service]]
name = "dns"
protocol = "udp"
listen = ["203.0.113.53:53", "[2001:db8::53]:53"]
requests = 2
backend = [{ address = "198.18.2.53:53" }]
[[service]]
name = "host"
protocol = "udp"
listen = ["203.0.113.54:53", "[2001:db8::54]:53"]
source = "host"
requests = 2
backend = [{ address = "198.18.2.53:53" }]
`)
	want := []string{
		`test.toml:5: service "dns" listen: source = "client" needs backends of the client's family: IPv6 flows will be refused (no_backend); add an IPv6 backend, or write source = "host"`,
		`test.toml:6: service "dns" requests: source = "client": a client can have one flow to each backend at a time; while it has all of them, its last one goes on beyond its requests; write source = "prefer-client", or remove requests`,
	}
	if diff := cmp.Diff(want, cfg.Warnings); diff != "" {
		t.Errorf("warnings (-want +got):\n%s", diff)
	}
}

// TestOwnKeys holds that each key of one protocol is written for that one only,
// and that the other refuses it whatever its value.
func TestOwnKeys(t *testing.T) {
	texts := map[Protocol]string{ProtocolTCP: minimal, ProtocolUDP: minimalUDP}
	for key, own := range ownKeys {
		if _, ok := lookup(kindService, key); !ok {
			if _, ok = lookup(kindAdmission, key); !ok {
				t.Errorf("%s is no key of a service", key)
			}
			continue
		}
		for protocol, text := range texts {
			_, written := tablesOf(t, writeTOML(t, mustParse(t, text)))[kindService][key]
			if want := protocol == own.of && !conditional[key]; written != want {
				t.Errorf("%s is written for %s: %t, want %t", key, protocol, written, want)
			}
			if protocol == own.of {
				continue
			}
			_, err := Parse("f", []byte(strings.Replace(text, "listen", key+" = 1.5\nlisten", 1)))
			if err == nil || strings.Count(err.Error(), "\n") > 0 || !strings.Contains(err.Error(), key+": a "+strings.ToUpper(string(protocol))+" service has no such key; ") {
				t.Errorf("%s in a service of %s: %v", key, protocol, err)
			}
		}
	}
}

// conditional are the keys of a service that are written only beside others.
var conditional = map[string]bool{
	"proxy_protocol_from": true, "proxy_protocol_timeout": true, "client_hello_timeout": true, "client_hello_max": true,
	"resolve_interval": true, "panic": true, kindAdmission: true, kindHealth: true, kindEjection: true, kindShadow: true, kindRoute: true,
}

// exampleUDP gives the UDP services of the example.
func exampleUDP(t *testing.T, text string) (vip, intercept map[string]any) {
	t.Helper()
	for _, s := range servicesOf(t, text) {
		switch {
		case s["protocol"] != "udp":
		case s["mode"] == "vip":
			vip = s
		case s["mode"] == "intercept":
			intercept = s
		}
	}
	if vip == nil || intercept == nil {
		t.Fatal("the example lacks a UDP service of one of the modes")
	}
	return vip, intercept
}

// TestExampleOfUDP holds that the example has a UDP service with each key, all
// but responses with its default, and one that intercepts.
func TestExampleOfUDP(t *testing.T) {
	data, err := os.ReadFile("../tproxyd.toml.example")
	if err != nil {
		t.Fatal(err)
	}
	vip, _ := exampleUDP(t, string(data))
	effective := tablesOf(t, writeTOML(t, mustParse(t, minimalUDP)))[kindService]
	if diff := cmp.Diff(slices.Sorted(maps.Keys(effective)), slices.Sorted(maps.Keys(vip))); diff != "" {
		t.Errorf("keys of the UDP service in the example (-all +example):\n%s", diff)
	}
	for key, want := range effective {
		if key == "responses" {
			want = int64(1) // A resolver answers a question once.
		}
		if noDefault["service "+key] {
			continue
		}
		if diff := cmp.Diff(want, vip[key]); diff != "" {
			t.Errorf("%s of the UDP service in the example (-default +example):\n%s", key, diff)
		}
	}
	// Each of its keys is explained where it stands.
	_, section, _ := strings.Cut(string(data), `name = "dns"`)
	section, _, _ = strings.Cut(section, "[[service.backend]]")
	for line := range strings.Lines(strings.TrimSpace(section)) {
		if _, rest, isKey := strings.Cut(line, " = "); isKey && !strings.Contains(rest, " # ") {
			t.Errorf("not explained: %s", line)
		}
	}
}
