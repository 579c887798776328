package deploy_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/tproxyd/tproxyd/internal/netnstest"
)

// TestUnit has systemd's own checks of the unit. systemd-analyze verify exits
// with 0 for unknown keys: what it prints counts.
func TestUnit(t *testing.T) {
	analyze := netnstest.Need(t, "systemd-analyze", "systemd")
	text, err := os.ReadFile("tproxyd.service")
	if err != nil {
		t.Fatal(err)
	}
	unit := filepath.Join(t.TempDir(), "tproxyd.service")
	installed := bytes.ReplaceAll(text, []byte("/usr/sbin/tproxyd"), []byte(daemon(t)))
	if err := os.WriteFile(unit, installed, 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), analyze, "verify", "--man=no", unit).CombinedOutput()
	if err != nil || bytes.Contains(out, []byte("tproxyd")) {
		t.Errorf("systemd-analyze verify: %v\n%s", err, out)
	}
	// The threshold is the exposure times ten.
	out, err = exec.CommandContext(t.Context(), analyze, "security", "--offline=true", "--threshold=25", "--no-pager", unit).CombinedOutput()
	if err != nil {
		t.Errorf("systemd-analyze security: %v\n%s", err, out)
	}
}

// TestSysctl sets what belongs to a network namespace, and only looks for the
// rest, which is the machine's.
func TestSysctl(t *testing.T) {
	sysctl := netnstest.Need(t, "sysctl", "procps")
	l := netnstest.New(t)
	text, err := os.ReadFile("sysctl.d/90-tproxyd.conf")
	if err != nil {
		t.Fatal(err)
	}
	for paragraph := range strings.SplitSeq(string(text), "\n\n") {
		if !strings.HasPrefix(paragraph, "#") {
			t.Errorf("settings without a reason:\n%s", paragraph)
		}
		for line := range strings.Lines(paragraph) {
			if strings.HasPrefix(line, "#") {
				continue
			}
			key, value, found := strings.Cut(strings.TrimSpace(line), " = ")
			if !found {
				t.Errorf("%q is not of the form key = value", line)
				continue
			}
			args := []string{"-w", key + "=" + value}
			if !strings.HasPrefix(key, "net.") || key == "net.core.rmem_max" {
				args = []string{"-n", key}
			}
			if out, err := try(t, l.Proxy, nil, sysctl, args...); err != nil {
				t.Errorf("sysctl %s: %v\n%s", args, err, out)
			}
		}
	}
}

// TestAlerts has promtool look at the rules and run their tests, and the
// daemon serve every metric that they are about.
func TestAlerts(t *testing.T) {
	promtool := netnstest.Need(t, "promtool", "prometheus")
	for _, args := range [][]string{
		{"check", "rules", "prometheus/tproxyd.rules.yml"},
		{"test", "rules", "prometheus/tproxyd.rules.test.yml"},
	} {
		if out, err := exec.CommandContext(t.Context(), promtool, args...).CombinedOutput(); err != nil {
			t.Errorf("promtool %s: %v\n%s", args, err, out)
		}
	}
	rules, err := os.ReadFile("prometheus/tproxyd.rules.yml")
	if err != nil {
		t.Fatal(err)
	}
	l := netnstest.New(t)
	// A spoofed check has to find a way back before there is a verdict.
	run(t, l, nil, "sh", "policy-routing.sh", "up")
	vipRules["nft"].up(t, l)
	startBackend(t, l.Server, each(backendPort, backends)...)
	startDaemon(t, l, fmt.Sprintf(daemonConfig, "", `
  [service.health]
  type = "tcp"
  interval = "20ms"
  timeout = "10s"
  check_source = "spoof"
[[service]]
name = "quic"
protocol = "udp"
listen = ["203.0.113.10:443"]
  [[service.backend]]
  address = "198.18.2.2:8443"
`))
	var served string
	netnstest.Eventually(t, patience, func() bool {
		served = scrape(t, l)
		return strings.Contains(served, "tproxyd_backend_return_path_ok{")
	}, "backends are checked")
	names := regexp.MustCompile(`\b(tproxyd|process)_[a-z_]+`).FindAllString(string(rules), -1)
	if len(names) < 10 {
		t.Fatalf("found only %d names of metrics in the rules", len(names))
	}
	for _, name := range names {
		if !strings.Contains(served, "\n"+name+"{") && !strings.Contains(served, "\n"+name+" ") {
			t.Errorf("an alert is about %s, which the daemon does not serve", name)
		}
	}
}
