package config

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestListFiles holds that the prefixes of a file are part of the configuration,
// and that its mistakes name it.
func TestListFiles(t *testing.T) {
	dir := t.TempDir()
	list := filepath.Join(dir, "allow.txt")
	write := func(text string) {
		if err := os.WriteFile(list, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	text := minimal + "[service.admission]\nallow = [\"203.0.113.9\", \"198.18.0.0/15\"]\nallow_file = \"allow.txt\"\ndeny = [\"203.0.113.66/32\"]\n"
	name := filepath.Join(dir, "tproxyd.toml")

	write("# nobody\n203.0.113.9 # twice\n\n\t2001:db8::1/32\r\n")
	cfg, err := Parse(name, []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	p := netip.MustParsePrefix
	want := &Admission{
		Allow:       []netip.Prefix{p("198.18.0.0/15"), p("203.0.113.9/32"), p("2001:db8::/32")},
		AllowInline: []netip.Prefix{p("198.18.0.0/15"), p("203.0.113.9/32")},
		Deny:        []netip.Prefix{p("203.0.113.66/32")}, DenyInline: []netip.Prefix{p("203.0.113.66/32")},
		AllowFile: list, ClientPrefixIPv4: 32, ClientPrefixIPv6: 64, MaxClients: 65536,
	}
	if diff := cmp.Diff(want, cfg.Services[0].Admission, sameAddrs); diff != "" {
		t.Errorf("admission (-want +got):\n%s", diff)
	}
	checkRoundTrip(t, cfg)

	for content, want := range map[string]string{
		"\nnonsense\n":   list + `:2: "nonsense" is no prefix and no IP address; `,
		"203.0.113.66\n": name + `:9: service "web" admission.deny: 203.0.113.66/32 is in allow too, at ` + list + ":1; ",
		strings.Repeat("\n", maxListLines) + "::1\n": list + ":1000001: the file has more than 1000000 lines; ",
		strings.Repeat("#", maxListSize+1):           name + `:8: service "web" admission.allow_file: `,
	} {
		write(content)
		if _, err := Parse(name, []byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	write(strings.Repeat("nonsense\n", 5000))
	if _, err := Parse(name, []byte(text)); err == nil || strings.Count(err.Error(), "\n") > maxErrors {
		t.Error("the mistakes of a list are not bounded")
	}
}

// TestRoundTripOfRules has values that are none of the defaults.
func TestRoundTripOfRules(t *testing.T) {
	checkRoundTrip(t, mustParse(t, full))
	for _, more := range []string{
		"slow_start = \"10s\"\non_backend_down = \"cut\"\nproxy_protocol = \"require\"\nsend_proxy = \"v1\"",
		"announce = true\nannounce_interface = \"eth0.7\"",
		"panic = \"open\"\nadmission = { rate_per_client = 2.5, client_prefix_ipv4 = 24 }\nejection = { base_time = \"10m\" }",
		"health = { type = \"http\", expect_status = \"300-399, 200,204,299-310\", method = \"POST\", path = \"/x?y\", expect_body = \"ok \\u00e9\" }",
		"shadow = { address = \"[2001:db8::9]:1\", percent = 7, direction = \"both\", compare = true, linger = \"1m\" }",
		"health = { type = \"udp\", send = \"0x00ff\", expect = \"0x3078\" }",
		"health = { type = \"dns\", query = \"_A.Example\", check_source = \"spoof\" }",
		"health = { type = \"tls\", server_name = \"A.example.\", verify = true, min_days = 9, address = \"198.18.0.9\", port = 8 }",
		"route = [{ name = \"r\", alpn = [\"\\u0000\"], backend = [{ srv = \"web.example\", max_connections = 3 }] }]\nqueue_size = 4\nresolve_interval = \"1m\"",
	} {
		checkRoundTrip(t, mustParse(t, strings.Replace(minimal, "listen", more+"\nlisten", 1)))
	}
	checkRoundTrip(t, mustParse(t, "admin = { listen = \"0.0.0.0:1\", write = true, socket = \"/run/x\", socket_mode = \"0\" }\nresolver = { max_interval = \"500ms\", servers = [\"::1\"] }\n"+minimal))
}

// TestHealthValues holds what values come to.
func TestHealthValues(t *testing.T) {
	health := func(text string) *Health {
		return mustParse(t, strings.Replace(minimal, "listen", "health = { "+text+" }\nlisten", 1)).Services[0].Health
	}
	if diff := cmp.Diff([][2]int{{200, 200}, {204, 204}, {299, 399}}, health(`type = "http", expect_status = "300-399,200,204,299-310"`).ExpectStatus); diff != "" {
		t.Errorf("statuses (-want +got):\n%s", diff)
	}
	if got := string(health(`type = "udp", send = "0x6869"`).Send); got != "hi" {
		t.Errorf("send %q", got)
	}
	if got := health(`type = "tcp", check_source = "spoof"`).SpoofAddress; len(got) != 1 || got[0] != netip.MustParseAddr("203.0.113.10") {
		t.Errorf("spoofed addresses %v, want that of listen", got)
	}
}

// TestNamesOfBackends holds what names come to, and that nothing is said of
// their family.
func TestNamesOfBackends(t *testing.T) {
	cfg := mustParse(t, `[[service]]
name = "a"
listen = ["203.0.113.10:1", "[2001:db8::10]:1"]
backend = [{ address = "Web.Example.:8443" }, { srv = "_X._tcp.example" }]
`)
	want := []Backend{
		{Name: "web.example", Host: "web.example", Port: 8443, Weight: 1},
		{Name: "_x._tcp.example", SRV: "_x._tcp.example", Weight: 1},
	}
	if diff := cmp.Diff(want, cfg.Services[0].Backends, sameAddrs); diff != "" {
		t.Errorf("backends (-want +got):\n%s", diff)
	}
	if len(cfg.Warnings) > 0 {
		t.Errorf("warnings %v", cfg.Warnings)
	}
}

// TestRules holds mistakes and warnings that look at several keys.
func TestRules(t *testing.T) {
	route := "[[service.route]]\nname = %q\n%s\n[[service.route.backend]]\naddress = \"198.18.2.9:%d\"\n"
	for text, want := range map[string]string{
		minimal + "[service.admission]\nrate_per_client = true":                                                        "admission.rate_per_client: expected a number, got the boolean true; ",
		minimal + "[service.admission]\nrate_per_client = nan":                                                         "NaN is out of range; ",
		strings.Replace(minimal, "listen", "ejection = {}\npanic = 1\nlisten", 1):                                      "panic: expected a string",
		minimal + fmt.Sprintf(route, "a", `alpn = ["h2", "x"]`, 1) + fmt.Sprintf(route, "b", `alpn = ["x"]`, 2):        `route "b" alpn: no flow gets here`,
		minimal + fmt.Sprintf(route, "a", `sni = ["a.b"]`, 1) + "name = \"198.18.2.2:8443\"":                           "is no name for a backend; ",
		minimal + strings.Replace(fmt.Sprintf(route, "a", `sni = ["a.b"]`, 1), "198.18.2.9:1", "203.0.113.10:443", 1):  "is our own listener",
		minimal + strings.Replace(fmt.Sprintf(route, "a", `sni = ["a.b"]`, 1), "198.18.2.9:1", "[2001:db8::1]:443", 1): `and route "a" has IPv6 backends only; `,
		minimal + strings.Replace(fmt.Sprintf(route, "a", `sni = ["a.b"]`, 1), "198.18.2.9:1", "198.18.2.2:8443", 1):   "give every backend of a service a name of its own",
	} {
		if _, err := Parse("f", []byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q of\n%s", err, want, text)
		}
	}
	for text, want := range map[string]string{
		strings.Replace(minimal, "listen", "queue_size = 1\nlisten", 1):                   "f:4: service \"web\" queue_size: no flow waits",
		strings.Replace(minimal, "listen", "announce_interface = \"eth0\"\nlisten", 1):    "f:4: service \"web\" announce_interface: nothing is announced",
		strings.Replace(minimal, "listen", "queue_timeout = \"1s\"\nlisten", 1):           "f:4: service \"web\" queue_timeout: no flow waits",
		minimal + "[service.health]\ntype = \"tcp\"\ninterval = \"1s\"\ntimeout = \"2s\"": "f:9: service \"web\" health.timeout: 2s is longer than interval, 1s",
		minimal + "[service.admission]\nallow = [\"::/0\"]\nmax_clients = 3":              "f:8: service \"web\" admission.max_clients: there is no limit by client",
		minimal + "[service.admission]\nclient_prefix_ipv6 = 48":                          "f:7: service \"web\" admission.client_prefix_ipv6: there is no limit by client",
		"admin = { socket_mode = \"0600\" }" + minimal:                                    "f:1: admin.socket_mode: there is no socket",
		"admin = { listen = \"0.0.0.0:1\", write = true }" + minimal:                      "f:1: admin.write: whoever reaches 0.0.0.0:1",
		minimal + fmt.Sprintf(route, "a", `sni = ["a.b"]`, 1) + "weight = 0":              "f:9: service \"web\" route \"a\" backend: all backends have weight 0",
	} {
		cfg, err := Parse("f", []byte(text))
		if err != nil || len(cfg.Warnings) != 1 || !strings.HasPrefix(cfg.Warnings[0], want) {
			t.Errorf("%v, %+v, want warning %q", err, cfg, want)
		}
	}
	for text, want := range map[string]bool{"": true, "listen = \"\"": false, "listen = \"[::1]:1\"": true, "listen = \"0.0.0.0:1\"": false, "write = false": false} {
		if got := mustParse(t, "admin = { "+text+" }"+minimal).Admin.Write; got != want {
			t.Errorf("%q: write %t", text, got)
		}
	}
}

func TestShadowRefused(t *testing.T) {
	for text, want := range map[string]string{
		``:                                 "the shadow has no address",
		`address = "0.0.0.0:1"`:            "is a wildcard",
		`address = "shadow.example:1"`:     "shadow.example",
		`address = "198.18.2.9:1-9"`:       "is a port range",
		`address = "203.0.113.10:443"`:     "connections would loop",
		`address = "[::1]:1", percent = 0`: "percent",
		`address = "[::1]:1", direction = "out", compare = true`: "has no answers to compare",
	} {
		_, err := Parse("f", []byte(strings.Replace(minimal, "listen", "shadow = {"+text+"}\nlisten", 1)))
		if err == nil || strings.Count(err.Error(), "\n") > 0 || !strings.Contains(err.Error(), want) {
			t.Errorf("shadow = {%s}: %v, want %q", text, err, want)
		}
	}
}
