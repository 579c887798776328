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

// tablesOf gives the tables of a file with a service and a backend, by kind.
func tablesOf(t *testing.T, text string) map[string]map[string]any {
	t.Helper()
	root := rootOf(t, text)
	service := servicesOf(t, text)[0]
	return map[string]map[string]any{
		kindRoot:    root,
		kindDaemon:  root["daemon"].(map[string]any),
		kindLog:     root["log"].(map[string]any),
		kindAdmin:   root["admin"].(map[string]any),
		kindService: service,
		kindBackend: service["backend"].([]map[string]any)[0],
	}
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
	"service name": true, "service listen": true, "service backend": true,
	"backend name": true, "backend address": true,
	" daemon": true, " log": true, " admin": true, " service": true,
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
	effective := tablesOf(t, writeTOML(t, mustParse(t, minimal)))
	for kind, fields := range schema {
		fields := slices.DeleteFunc(slices.Clone(fields), func(f field) bool {
			return kind == kindService && (!ProtocolTCP.serves(f.name) || // TestExampleOfUDP has them
				!BalanceRoundRobin.hashes(f.name)) // TestExampleOfMaglev
		})
		for _, f := range fields {
			want, written := effective[kind][f.name]
			if !written {
				t.Errorf("%s %s is read but not written", kind, f.name)
			}
			got, shown := example[kind][f.name]
			if !shown {
				t.Errorf("the example lacks %s %s", kind, f.name)
			}
			if noDefault[kind+" "+f.name] {
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
			text := fmt.Sprintf("%s = 1.5\n", f.name)
			switch kind {
			case kindRoot:
			case kindBackend:
				text = headers[kindService] + "\n" + headers[kind] + "\n" + text
			case kindService:
				text = headers[kind] + "\nprotocol = \"udp\"\n" + text
				if !BalanceRoundRobin.hashes(f.name) {
					text = headers[kind] + "\nbalance = \"maglev\"\n" + f.name + " = 1.5\n"
				} else if ProtocolTCP.serves(f.name) {
					text = headers[kind] + "\n" + f.name + " = 1.5\n"
				}
			default:
				text = headers[kind] + "\n" + text
			}
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

// TestExamplesOfSchemaAreValid holds that what remedies show can be written.
func TestExamplesOfSchemaAreValid(t *testing.T) {
	for _, protocol := range []Protocol{ProtocolTCP, ProtocolUDP} {
		var b strings.Builder
		for _, kind := range []string{kindDaemon, kindLog, kindAdmin, kindService, kindBackend} {
			b.WriteString(headers[kind] + "\n")
			for _, f := range schema[kind] {
				if kind == kindService && f.name == "protocol" {
					f.value = string(protocol)
				}
				if kind == kindService && f.name == "balance" {
					f.value = string(BalanceMaglev) // which has all keys
				}
				if f.value != nil && (kind != kindService || protocol.serves(f.name)) {
					b.WriteString(f.example() + "\n")
				}
			}
		}
		if got := mustParse(t, b.String()).Services[0].Protocol; got != protocol {
			t.Errorf("protocol %q, want %q", got, protocol)
		}
	}
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
