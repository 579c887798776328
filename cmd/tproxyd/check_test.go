package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/tproxyd/tproxyd/config"
	"github.com/tproxyd/tproxyd/internal/golden"
)

const good = `
[[service]]
name = "web"
listen = ["203.0.113.10:443"]
[[service.backend]]
address = "198.18.2.2:8443"
`

// goodUDP has the two protocols on one address.
const goodUDP = good + `
[[service]]
name = "quic"
protocol = "udp"
listen = ["203.0.113.10:443"]
max_flows = 1000
[[service.backend]]
address = "198.18.2.2:8443"
`

// goodBalance has every key of balancing.
const goodBalance = `
[[service]]
name = "web"
listen = ["203.0.113.10:443"]
balance = "maglev"
[[service.backend]]
address = "198.18.2.2:8443"
weight = 3
[[service.backend]]
address = "198.18.2.3:8443"
backup = true
`

// goodRules has every table of a service.
const goodRules = good + `
[service.admission]
[service.health]
type = "tcp"
[service.ejection]
[service.shadow]
address = "198.18.2.9:8443"
[[service]]
name = "keys"
listen = ["203.0.113.11:443"]
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
`

// partly is usable and worth a warning.
const partly = `
[[service]]
name = "web"
listen = ["203.0.113.10:443", "[2001:db8::10]:443"]
[[service.backend]]
address = "198.18.2.2:8443"
`

// bad has three mistakes, on the lines 2, 5 and 7.
const bad = `[daemon]
worker = 1
[[service]]
name = "web"
listen = ["203.0.113.10"]
[[service.backend]]
address = "backend"
`

func write(t *testing.T, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "tproxyd.toml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// checked are the configurations of which the whole output is held, by the name
// of the golden files.
var checked = map[string]string{"check": good, "check-udp": goodUDP, "check-balance": goodBalance, "check-rules": goodRules}

// TestCheckTOML prints what is, again, a configuration, and the same one.
func TestCheckTOML(t *testing.T) {
	for name, text := range checked {
		code, stdout, stderr := cli(t, "check", "--config", write(t, text))
		if code != exitOK || stderr != "" {
			t.Fatalf("exit code %d, stderr %q", code, stderr)
		}
		golden.Compare(t, name+".golden.toml", stdout)
		again, second, _ := cli(t, "check", "--config", write(t, stdout))
		if again != exitOK || second != stdout {
			t.Errorf("exit code %d of what check printed itself, which becomes:\n%s", again, second)
		}
	}
}

func TestCheckJSON(t *testing.T) {
	for name, text := range checked {
		code, stdout, stderr := cli(t, "check", "--json", "--config", write(t, text))
		if code != exitOK || stderr != "" {
			t.Fatalf("exit code %d, stderr %q", code, stderr)
		}
		golden.Compare(t, name+".golden.json", stdout)
	}
}

// TestCheckExample has every key of the example known, and its warnings none.
func TestCheckExample(t *testing.T) {
	code, _, stderr := cli(t, "check", "--config", "../../tproxyd.toml.example")
	if code != exitOK || stderr != "" {
		t.Errorf("exit code %d, stderr %q", code, stderr)
	}
}

func TestCheckQuiet(t *testing.T) {
	code, stdout, stderr := cli(t, "check", "--quiet", "--config", write(t, good))
	if code != exitOK || stdout != "" || stderr != "" {
		t.Errorf("good: exit code %d, stdout %q, stderr %q", code, stdout, stderr)
	}
	code, stdout, stderr = cli(t, "check", "--quiet", "--config", write(t, bad))
	if code != exitUsage || stdout != "" || strings.Count(stderr, "\n") != 3 {
		t.Errorf("bad: exit code %d, stdout %q, stderr %q", code, stdout, stderr)
	}
}

func TestCheckWarning(t *testing.T) {
	file := write(t, partly)
	for _, args := range [][]string{{"check"}, {"check", "--json"}, {"check", "--quiet"}} {
		code, stdout, stderr := cli(t, append(args, "--config", file)...)
		if code != exitOK || strings.Contains(stdout, "warning") {
			t.Errorf("%q: exit code %d, stdout %q", args, code, stdout)
		}
		if want := regexp.MustCompile(`^warning: ` + regexp.QuoteMeta(file) + `:4: .*IPv6.*\n$`); !want.MatchString(stderr) {
			t.Errorf("%q: stderr %q", args, stderr)
		}
	}
}

// TestCheckErrors wants all mistakes in one run, one line each.
func TestCheckErrors(t *testing.T) {
	file := write(t, bad)
	code, stdout, stderr := cli(t, "check", "--config", file)
	lines := strings.Split(strings.TrimSuffix(stderr, "\n"), "\n")
	if code != exitUsage || stdout != "" || len(lines) != 3 {
		t.Fatalf("exit code %d, stdout %q, stderr %q", code, stdout, stderr)
	}
	for i, want := range []string{":2: ", ":5: ", ":7: "} {
		if !strings.HasPrefix(lines[i], file+want) || !strings.Contains(lines[i], "; ") {
			t.Errorf("line %q does not begin with %s or has no remedy", lines[i], file+want)
		}
	}

	code, stdout, again := cli(t, "check", "--json", "--config", file)
	var got struct{ Errors config.Errors }
	if err := json.Unmarshal([]byte(stdout), &got); err != nil {
		t.Fatal(err)
	}
	if code != exitUsage || again != stderr || len(got.Errors) != 3 {
		t.Errorf("--json: exit code %d, stdout %q, stderr %q", code, stdout, again)
	}
	if e := got.Errors[1]; e.File != file || e.Line != 5 || e.Key == "" || e.Msg == "" || e.Remedy == "" {
		t.Errorf("--json: second error %+v", e)
	}
}

// TestUnreadable has files that are none, or not all there. The daemon says
// the same of them as the check.
func TestUnreadable(t *testing.T) {
	dir := t.TempDir()
	half := write(t, good[:len(good)-8])
	empty := write(t, "")
	for _, command := range []string{"check", "run"} {
		for file, want := range map[string]string{
			dir:                                 dir + ": cannot read the file: it is a directory; ",
			filepath.Join(dir, "none.toml"):     dir + "/none.toml: cannot read the file: no such file or directory; ",
			filepath.Join(half, "below-a-file"): half + "/below-a-file: cannot read the file: not a directory; ",
			half:                                half + ":6: TOML syntax: ",
			empty:                               empty + ":1: the file is empty; ",
		} {
			code, stdout, stderr := cli(t, command, "--config", file)
			if code != exitUsage || stdout != "" || !strings.HasPrefix(stderr, want) || strings.Count(stderr, "\n") != 1 {
				t.Errorf("%s: exit code %d, stdout %q, stderr %q, want one line %q", command, code, stdout, stderr, want)
			}
		}
	}
}
