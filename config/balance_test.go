package config

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// balanced is a service of a protocol with a text of its own and two backends.
func balanced(protocol Protocol, text, first, second string) string {
	return fmt.Sprintf("[[service]]\nname = \"a\"\nprotocol = %q\nlisten = [\"203.0.113.10:1\"]\n%s\n"+
		"[[service.backend]]\naddress = \"198.18.2.2:1\"\n%s\n[[service.backend]]\naddress = \"198.18.2.3:1\"\n%s\n",
		string(protocol), text, first, second)
}

// TestAlgorithms holds which keys are read and written for each algorithm.
func TestAlgorithms(t *testing.T) {
	for _, protocol := range []Protocol{ProtocolTCP, ProtocolUDP} {
		for _, a := range algorithms {
			cfg := mustParse(t, balanced(protocol, fmt.Sprintf("balance = %q", string(a)), "", "weight = 0"))
			want := Service{Balance: a}
			if a == BalanceMaglev {
				want.Hash, want.MaglevTableSize = HashFiveTuple, 65537
			}
			s := cfg.Services[0]
			got := Service{Balance: s.Balance, Hash: s.Hash, MaglevTableSize: s.MaglevTableSize, HashSeed: s.HashSeed}
			if diff := cmp.Diff(want, got, sameAddrs); diff != "" {
				t.Errorf("%s (-want +got):\n%s", a, diff)
			}
			if len(cfg.Warnings) > 0 {
				t.Errorf("%s: warnings %v", a, cfg.Warnings)
			}
			checkRoundTrip(t, cfg)
			written := tablesOf(t, writeTOML(t, cfg))[kindService]
			for _, k := range algorithmKeys {
				if _, got := written[k.name]; got != a.takes(k.name) {
					t.Errorf("%s is written for %s: %t", k.name, a, got)
				}
			}
		}
	}
}

// TestNoBalance holds that what has no backends has no key of them.
func TestNoBalance(t *testing.T) {
	cfg := mustParse(t, "[[service]]\nname = \"a\"\nmode = \"intercept\"\nlisten = [\"0.0.0.0:15001\"]\n")
	if text := writeTOML(t, cfg); cfg.Services[0].Balance != "" || strings.Contains(text, "balance") || strings.Contains(text, "hash") {
		t.Errorf("balance %q, written\n%s", cfg.Services[0].Balance, text)
	}
	checkRoundTrip(t, cfg)
}

func TestNearest(t *testing.T) {
	for text, want := range map[string]Algorithm{
		"roundrobin": BalanceRoundRobin, "RoundRobin": BalanceRoundRobin, "round_robin": BalanceRoundRobin, "static-rr": BalanceRoundRobin,
		"leastconn": BalanceLeastConn, "least_conn": BalanceLeastConn, "source": BalanceSourceHash, "sourcehash": BalanceSourceHash,
		"random": BalanceRandomTwo, "magelv": BalanceMaglev, "frist": BalanceFirst, "": "", "uri": "", "rdp-cookie": "",
	} {
		if got := nearest(text); got != want {
			t.Errorf("nearest(%q) = %q, want %q", text, got, want)
		}
	}
}

func TestWarningsOfWeights(t *testing.T) {
	const zero = `test.toml:6: service "a" backend: all backends have weight 0: all flows will be refused (no_backend); give one of them a weight above 0`
	const backups = `test.toml:6: service "a" backend: all backends are backups: they are used as if none were; remove backup from those that are to be used first`
	for _, tt := range []struct {
		first, second string
		want          []string
	}{
		{"", "", nil},
		{"weight = 0", "", nil},
		{"weight = 0", "backup = true", nil}, // taken out for a while
		{"weight = 0", "weight = 0", []string{zero}},
		{"backup = true", "backup = true", []string{backups}},
	} {
		cfg := mustParse(t, balanced(ProtocolTCP, "", tt.first, tt.second))
		if diff := cmp.Diff(tt.want, cfg.Warnings); diff != "" {
			t.Errorf("%q, %q: warnings (-want +got):\n%s", tt.first, tt.second, diff)
		}
	}
}

// TestExampleOfMaglev holds that the example has the keys of Maglev with their
// defaults.
func TestExampleOfMaglev(t *testing.T) {
	data, err := os.ReadFile("../tproxyd.toml.example")
	if err != nil {
		t.Fatal(err)
	}
	effective := tablesOf(t, writeTOML(t, mustParse(t, balanced(ProtocolTCP, `balance = "maglev"`, "", ""))))[kindService]
	for _, s := range servicesOf(t, string(data)) {
		if s["balance"] != "maglev" {
			continue
		}
		for _, k := range algorithmKeys {
			if diff := cmp.Diff(effective[k.name], s[k.name]); diff != "" {
				t.Errorf("%s in the example (-default +example):\n%s", k.name, diff)
			}
		}
		return
	}
	t.Error("the example has no service with Maglev")
}
