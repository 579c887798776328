package config

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/BurntSushi/toml"
	"github.com/google/go-cmp/cmp"
)

// tablesOf gives the tables of a file, by kind. Of several of one kind it has the
// keys of all, and of a key the first value.
func tablesOf(t *testing.T, text string) map[string]map[string]any {
	t.Helper()
	out := make(map[string]map[string]any)
	var walk func(kind string, v any)
	walk = func(kind string, v any) {
		switch v := v.(type) {
		case []map[string]any:
			for _, e := range v {
				walk(kind, e)
			}
		case map[string]any:
			if out[kind] == nil {
				out[kind] = make(map[string]any)
			}
			for key, e := range v {
				if _, ok := out[kind][key]; !ok {
					out[kind][key] = e
				}
				walk(key, e)
			}
		}
	}
	walk(kindRoot, rootOf(t, text))
	return out
}

func rootOf(t *testing.T, text string) map[string]any {
	t.Helper()
	var root map[string]any
	if _, err := toml.Decode(text, &root); err != nil {
		t.Fatal(err)
	}
	return root
}

func servicesOf(t *testing.T, text string) []map[string]any {
	t.Helper()
	return rootOf(t, text)["service"].([]map[string]any)
}

// noDefault are the keys that have none.
var noDefault = map[string]bool{
	"service name": true, "service listen": true, "service backend": true, "service route": true,
	"service admission": true, "service health": true, "service ejection": true, "service shadow": true, "shadow address": true,
	"backend name": true, "backend address": true, "backend srv": true,
	"route name": true, "route sni": true, "route alpn": true, "route backend": true,
	"health spoof_address": true, "service proxy_protocol_from": true,
	" daemon": true, " log": true, " admin": true, " resolver": true, " tap": true, " service": true, " mirror": true,
	"mirror name": true, "mirror interfaces": true, "mirror to_interface": true, "mirror collector": true, "mirror services": true,
	"tap capture": true, "tap recorder": true, "capture name": true, "capture directory": true, "recorder directory": true,
}

// TestExampleHasEveryKey holds that the example has each key with its default,
// and that what is written has exactly the keys that are read.
func TestExampleHasEveryKey(t *testing.T) {
	data, err := os.ReadFile("../tproxyd.toml.example")
	if err != nil {
		t.Fatal(err)
	}
	if cfg := mustParse(t, string(data)); len(cfg.Warnings) > 0 {
		t.Errorf("warnings of the example: %v", cfg.Warnings)
	}
	example := tablesOf(t, string(data))
	effective := tablesOf(t, writeTOML(t, mustParse(t, full)))
	for kind, fields := range schema {
		for _, f := range fields {
			want, written := effective[kind][f.name]
			if !written {
				t.Errorf("%s %s is read but not written", kind, f.name)
			}
			got, shown := example[kind][f.name]
			if !shown {
				t.Errorf("the example lacks %s %s", kind, f.name)
			}
			if noDefault[kind+" "+f.name] || kind == kindHealth && f.name == "tls" || f.name == "responses" {
				continue
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%s %s in the example (-default +example):\n%s", kind, f.name, diff)
			}
		}
		if len(effective[kind]) != len(fields) {
			t.Errorf("table %q: %d keys written, %d read", kind, len(effective[kind]), len(fields))
		}
	}
}

// full has every key with its default in some service.
const full = minimal + fullTap + `
[[service]]
name = "tables"
listen = ["203.0.113.12:443"]
backend = [{ address = "198.18.2.2:8443" }]
[service.admission]
[service.health]
type = "tcp"
[service.ejection]
[service.shadow]
address = "198.18.2.9:8443"
[[service]]
name = "keys"
listen = ["203.0.113.11:443"]
announce = true
balance = "maglev"
proxy_protocol = "accept-from"
proxy_protocol_from = ["198.18.0.0/24"]
[service.health]
type = "http"
tls = true
check_source = "spoof"
[[service.route]]
name = "api"
sni = ["api.example"]
alpn = ["h2"]
[[service.route.backend]]
address = "api.example:443"
[[service.route.backend]]
srv = "_https._tcp.api.example"
[[service]]
name = "dns"
protocol = "udp"
listen = ["203.0.113.53:53"]
backend = [{ address = "198.18.2.53:53" }]
[service.admission]
[service.health]
type = "dns"
[[service]]
name = "udp"
protocol = "udp"
listen = ["203.0.113.54:53"]
backend = [{ address = "198.18.2.53:53" }]
[service.health]
type = "udp"
[[mirror]]
name = "span"
interfaces = ["eth0"]
to_interface = "eth2"
[[mirror]]
name = "far"
interfaces = ["eth0"]
collector = "198.18.2.9"
[[mirror]]
name = "far-gre"
interfaces = ["eth0"]
collector = "198.18.2.9"
encapsulation = "gre"
[[mirror]]
name = "far-erspan"
interfaces = ["eth0"]
collector = "198.18.2.9"
encapsulation = "erspan"
`

const fullTap = `
[tap]
[[tap.capture]]
name = "web"
directory = "/var/lib/tproxyd/captures"
[tap.recorder]
directory = "/var/lib/tproxyd/dumps"
`

// TestExampleExplainsEveryKey holds the line of explanation.
func TestExampleExplainsEveryKey(t *testing.T) {
	data, err := os.ReadFile("../tproxyd.toml.example")
	if err != nil {
		t.Fatal(err)
	}
	explained := make(map[string]bool)
	for line := range strings.Lines(string(data)) {
		key, rest, ok := strings.Cut(strings.TrimSpace(line), " = ")
		if ok && strings.Contains(rest, " # ") {
			explained[key] = true
		}
	}
	for kind, fields := range schema {
		for _, f := range fields {
			if f.value != nil && !explained[f.name] {
				t.Errorf("the example does not explain %s %s", kind, f.name)
			}
		}
	}
}

// TestEveryKeyIsTyped gives each key a value that no key takes.
func TestEveryKeyIsTyped(t *testing.T) {
	for kind, fields := range schema {
		for _, f := range fields {
			if f.name == "rate_per_client" {
				continue // TestRules has it
			}
			service := headers[kindService] + "\n"
			switch {
			case kind == kindRoot || !inService(kind) && kind != kindService:
				service = ""
			case !ProtocolTCP.serves(f.name):
				service += "protocol = \"udp\"\n"
			case !BalanceRoundRobin.takes(f.name):
				service += "balance = \"maglev\"\n"
			}
			if kind != kindRoot && kind != kindService {
				service += headers[kind] + "\n"
			}
			if kind == kindHealth && f.name != "type" {
				for _, k := range healthKeys {
					if k.name == f.name {
						service += fmt.Sprintf("type = %q\n", string(k.of[0]))
					}
				}
			}
			if kind == kindMirror && slices.Contains([]string{"encapsulation", "vni", "key", "session"}, f.name) {
				service += "collector = \"198.18.2.9\"\n"
			}
			for _, id := range identifiers {
				if kind == kindMirror && f.name == id.key {
					service += fmt.Sprintf("encapsulation = %q\n", string(id.kind))
				}
			}
			if f.name == "spoof_address" {
				service += "check_source = \"spoof\"\n"
			}
			switch f.name {
			case "panic":
				continue // needs a table below, TestRules has it
			case "resolve_interval":
				service += "backend = [{ address = \"a.example:1\" }]\n"
			case "proxy_protocol_timeout":
				service += "proxy_protocol = \"require\"\n"
			case "client_hello_timeout", "client_hello_max":
				service += "route = [{}]\n"
			}
			text := service + f.name + " = 1.5\n"
			_, err := Parse("f", []byte(text))
			var errs Errors
			if !errors.As(err, &errs) {
				t.Fatalf("%s %s = 1.5 was accepted", kind, f.name)
			}
			found := false
			for _, e := range errs {
				found = found || strings.HasSuffix(e.Key, f.name) &&
					e.Line == strings.Count(text, "\n") && strings.Contains(e.Msg, "got the float 1.5")
			}
			if !found {
				t.Errorf("%s %s = 1.5: no error for its type in\n%v", kind, f.name, err)
			}
		}
	}
}

// TestExamplesOfSchemaAreValid holds that what remedies show can be written: each
// key, in a file that has what it needs.
func TestExamplesOfSchemaAreValid(t *testing.T) {
	needs := map[string]string{
		"hash": `balance = "maglev"`, "maglev_table_size": `balance = "maglev"`, "hash_seed": `balance = "maglev"`,
		"panic":                  "ejection = {}",
		"proxy_protocol_from":    `proxy_protocol = "require"`,
		"proxy_protocol_timeout": `proxy_protocol = "require"`,
		"spoof_address":          `check_source = "spoof"`,
	}
	for kind, fields := range schema {
		for _, f := range fields {
			if f.value == nil {
				continue // a table
			}
			protocol := ProtocolTCP
			if !protocol.serves(f.name) {
				protocol = ProtocolUDP
			}
			text := exampleFile(kind, f, protocol, needs[f.name])
			if _, err := Parse("f", []byte(text)); err != nil {
				t.Errorf("%s %s: %v\n%s", kind, f.name, err, text)
			}
		}
	}
}

// exampleFile is a file with the example of f, and with need beside it.
func exampleFile(kind string, f field, protocol Protocol, need string) string {
	lines := func(of, rest string, keys ...string) string {
		if of == kind {
			var own []string
			for _, k := range keys {
				if !strings.HasPrefix(k, f.name+" = ") {
					own = append(own, k)
				}
			}
			keys = append(own, f.example(), need)
		}
		return headers[of] + "\n" + strings.Join(keys, "\n") + "\n" + rest
	}
	backend := []string{`address = "198.18.2.2:8443"`}
	service := []string{`name = "web"`, fmt.Sprintf("protocol = %q", string(protocol)), `listen = ["203.0.113.10:443"]`}
	switch f.name {
	case "srv":
		backend = nil
	case "resolve_interval":
		backend = []string{`address = "a.example:1"`}
	case "listen":
		service = append(service, `source = "client-ip"`) // of two families, with backends of one
	}
	var text string
	directory := `directory = "/var/lib/tproxyd"`
	switch kind {
	case kindDaemon, kindLog, kindAdmin, kindResolver, kindTap:
		text = lines(kind, "")
	case kindCapture:
		text = lines(kind, "", `name = "web"`, directory)
	case kindRecorder:
		text = lines(kind, "", directory)
	}
	text += lines(kindService, lines(kindBackend, "", backend...), service...)
	switch {
	case kind == kindHealth:
		typ := `type = "tcp"`
		for _, k := range healthKeys {
			if k.name == f.name {
				typ = fmt.Sprintf("type = %q", string(k.of[0]))
			}
		}
		text += lines(kindHealth, "", typ)
	case kind == kindShadow && f.name != "address":
		text += lines(kind, "", `address = "198.18.2.9:8443"`)
	case kind == kindShadow || kind == kindAdmission || kind == kindEjection:
		text += lines(kind, "")
	case kind == kindMirror:
		mirror := []string{`name = "a"`, `interfaces = ["eth0"]`}
		switch f.name {
		case "to_interface", "collector":
		case "encapsulation", "vni", "key", "session":
			mirror = append(mirror, `collector = "198.18.2.9"`)
			for _, id := range identifiers {
				if f.name == id.key {
					mirror = append(mirror, fmt.Sprintf("encapsulation = %q", string(id.kind)))
				}
			}
		default:
			mirror = append(mirror, `to_interface = "eth1"`)
		}
		text += lines(kindMirror, "", mirror...)
	case kind == kindRoute || strings.HasPrefix(f.name, "client_hello"):
		text += lines(kindRoute, "[[service.route.backend]]\naddress = \"198.18.2.3:8443\"\n", `name = "a"`, `sni = ["a.example"]`)
	}
	return text
}

func TestDistance(t *testing.T) {
	tests := []struct {
		a, b string
		want int
	}{
		{"", "", 0},
		{"", "abc", 3},
		{"listen", "listen", 0},
		{"lisen", "listen", 1},
		{"listne", "listen", 1},
		{"kitten", "sitting", 3},
		{"level", "levle", 1},
		{strings.Repeat("x", 65), "x", 64},
	}
	for _, tt := range tests {
		if got := distance(tt.a, tt.b); got != tt.want {
			t.Errorf("distance(%q, %q) = %d, want %d", tt.a, tt.b, got, tt.want)
		}
		if got := distance(tt.b, tt.a); got != tt.want {
			t.Errorf("distance(%q, %q) = %d, want %d", tt.b, tt.a, got, tt.want)
		}
	}
}

// TestUnknownKeyOfSchemaPanics holds that a getter cannot ask for a key that the
// schema lacks.
func TestUnknownKeyOfSchemaPanics(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("no panic")
		}
	}()
	table{kind: kindDaemon}.field("nonsense")
}
