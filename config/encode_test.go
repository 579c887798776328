package config

import (
	"encoding/json"
	"errors"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/BurntSushi/toml"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func writeTOML(t *testing.T, cfg *Config) string {
	t.Helper()
	var b strings.Builder
	if err := cfg.WriteTOML(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// checkRoundTrip holds that a written configuration is the same once more.
func checkRoundTrip(t *testing.T, cfg *Config) {
	t.Helper()
	text := writeTOML(t, cfg)
	again, err := Parse("again", []byte(text))
	if err != nil {
		t.Fatalf("parse what was written: %v\n%s", err, text)
	}
	if diff := cmp.Diff(cfg, again, sameAddrs, cmpopts.IgnoreFields(Config{}, "Warnings")); diff != "" {
		t.Errorf("round trip (-before +after):\n%s", diff)
	}
	if len(cfg.Warnings) != len(again.Warnings) {
		t.Errorf("warnings %q after %q", again.Warnings, cfg.Warnings)
	}
}

func TestRoundTrip(t *testing.T) {
	example, err := os.ReadFile("../tproxyd.toml.example")
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{minimal, everything, minimalUDP, everythingUDP, minimal + minimalUDP, full, string(example)} {
		checkRoundTrip(t, mustParse(t, text))
	}
}

// TestJSONSaysTheSame holds that JSON and TOML output have the same keys and
// values.
func TestJSONSaysTheSame(t *testing.T) {
	for _, text := range []string{minimal, everything, minimalUDP, everythingUDP} {
		cfg := mustParse(t, text)
		data, err := json.Marshal(cfg)
		if err != nil {
			t.Fatal(err)
		}
		var fromJSON, fromTOML map[string]any
		if err := json.Unmarshal(data, &fromJSON); err != nil {
			t.Fatal(err)
		}
		if _, err := toml.Decode(writeTOML(t, cfg), &fromTOML); err != nil {
			t.Fatal(err)
		}
		same, err := json.Marshal(fromTOML)
		if err != nil {
			t.Fatal(err)
		}
		var tomlAsJSON map[string]any
		if err := json.Unmarshal(same, &tomlAsJSON); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(tomlAsJSON, fromJSON); diff != "" {
			t.Errorf("JSON (-toml +json):\n%s", diff)
		}
	}
}

func TestJSONWithoutBackends(t *testing.T) {
	cfg := mustParse(t, "[[service]]\nname = \"a\"\nmode = \"intercept\"\nlisten = [\"0.0.0.0:15001\"]\n")
	data, err := json.Marshal(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(data), `"backend":[]`) {
		t.Errorf("no empty array of backends: %s", data)
	}
}

func TestCompact(t *testing.T) {
	tests := map[string][]string{
		"one":            {"203.0.113.10:80"},
		"range":          {"203.0.113.10:80-81"},
		"two":            {"203.0.113.10:80", "203.0.113.10:82"},
		"addresses":      {"203.0.113.10:80", "203.0.113.11:81"},
		"last port":      {"[2001:db8::1]:65534-65535", "[2001:db8::1]:1"},
		"mixed families": {"0.0.0.0:80", "[::]:81-90"},
	}
	for name, want := range tests {
		t.Run(name, func(t *testing.T) {
			var addrs []netip.AddrPort
			for _, s := range want {
				p, bad := parsePorts(s)
				if bad != nil {
					t.Fatal(bad)
				}
				for port := int(p.lo); port <= int(p.hi); port++ {
					addrs = append(addrs, netip.AddrPortFrom(p.addr, uint16(port)))
				}
			}
			if diff := cmp.Diff(want, compact(addrs)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestFormatDuration(t *testing.T) {
	for want, d := range map[string]time.Duration{
		"0s": 0, "1ms": time.Millisecond, "30s": 30 * time.Second, "10m": 10 * time.Minute, "1m30s": 90 * time.Second,
		"1h": time.Hour, "1h10m": 70 * time.Minute, "1h0m1s": time.Hour + time.Second, "10h": 10 * time.Hour, "1.5s": 1500 * time.Millisecond,
	} {
		if got := formatDuration(d); got != want {
			t.Errorf("formatDuration(%v) = %q, want %q", d, got, want)
		}
		if back, err := time.ParseDuration(want); err != nil || back != d {
			t.Errorf("%q parses to %v, %v", want, back, err)
		}
	}
}

type brokenWriter struct{}

var errBroken = errors.New("broken")

func (brokenWriter) Write([]byte) (int, error) { return 0, errBroken }

func TestWriteTOMLError(t *testing.T) {
	if err := mustParse(t, minimal).WriteTOML(brokenWriter{}); !errors.Is(err, errBroken) {
		t.Errorf("got %v, want the error of the writer", err)
	}
}
