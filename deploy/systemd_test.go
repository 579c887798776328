package deploy_test

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tproxyd/tproxyd/internal/lab"
	"github.com/tproxyd/tproxyd/internal/netnstest"
)

const (
	configPath = "/etc/tproxyd/tproxyd.toml"
	dropInPath = "/etc/systemd/system/tproxyd.service.d/test.conf"
	// moreConnections than any descriptor limit allows.
	moreConnections = 3000000
)

// oneMoreService is added by a reload.
const oneMoreService = `
[[service]]
name = "extra"
mode = "vip"
listen = ["203.0.113.10:4443"]
source = "client-ip"

  [[service.backend]]
  address = "198.18.2.2:8443"
`

// announcedService needs packet sockets.
var announcedService = strings.Replace(oneMoreService, "source", "announce = true\nannounce_interface = \""+lab.ClientLink+"\"\nsource", 1)

func configWith(daemonSettings, services string) string {
	return fmt.Sprintf(daemonConfig, daemonSettings, services)
}

// TestSystemd runs the unit as it is shipped on both ends of the range of
// systemd versions that it is for: 252 and 257.
func TestSystemd(t *testing.T) {
	steps := []struct {
		name string
		run  func(*testing.T, *box)
	}{
		{"unit", testBoxUnit},
		{"start", testBoxStart},
		{"limits", testBoxLimits},
		{"reload", testBoxReload},
		{"reload bad file", testBoxReloadBad},
		{"kill", testBoxKill},
		{"watchdog", testBoxWatchdog},
		{"announce", testBoxAnnounce},
		{"drain", testBoxDrain},
		{"socket", testBoxSocket},
		{"no capability", testBoxNoCapability},
		{"bad file", testBoxBadFile},
	}
	for _, suite := range []string{"bookworm", "trixie"} {
		t.Run(suite, func(t *testing.T) {
			l := newLab(t)
			run(t, l, nil, "sh", "policy-routing.sh", "up")
			vipRules["nft"].up(t, l)
			startBackend(t, l.Server, each(backendPort, backends)...)
			b := bootBox(t, l, suite)
			b.install(t)
			for _, step := range steps {
				t.Run(step.name, func(t *testing.T) {
					b.reset(t)
					step.run(t, b)
				})
			}
		})
	}
}

// install puts the daemon and its unit into the box, as make install does.
func (b *box) install(t *testing.T) {
	t.Helper()
	binary, err := os.ReadFile(daemon(t))
	if err != nil {
		t.Fatal(err)
	}
	unit, err := os.ReadFile("tproxyd.service")
	if err != nil {
		t.Fatal(err)
	}
	b.write(t, "/usr/sbin/tproxyd", string(binary), 0o755)
	b.write(t, "/etc/systemd/system/tproxyd.service", string(unit), 0o644)
}

// reset brings the unit back to stopped, with a good configuration.
func (b *box) reset(t *testing.T) {
	t.Helper()
	b.run(t, "systemctl", "stop", "tproxyd")
	b.write(t, configPath, configWith("", ""), 0o644)
	b.dropIn(t, "")
	_, _ = b.try(t, "systemctl", "reset-failed", "tproxyd") // fails when there is nothing to reset
	tail := b.run(t, "journalctl", "--lines=1", "--output=cat", "--show-cursor")
	_, b.cursor, _ = strings.Cut(tail, "-- cursor: ")
}

func (b *box) dropIn(t *testing.T, text string) {
	t.Helper()
	b.write(t, dropInPath, "[Service]\n"+text, 0o644)
	b.run(t, "systemctl", "daemon-reload")
}

func (b *box) start(t *testing.T) (pid int) {
	t.Helper()
	b.run(t, "systemctl", "start", "tproxyd")
	return b.pid(t)
}

// pid returns the daemon's, in the box.
func (b *box) pid(t *testing.T) int {
	t.Helper()
	pid, err := strconv.Atoi(b.property(t, "MainPID"))
	if err != nil {
		t.Fatal(err)
	}
	return pid
}

// serves sends a connection of each family through the service.
func (b *box) serves(t *testing.T) {
	t.Helper()
	for _, f := range families {
		reaches(t, b.l.Client, at(f.client, 0), at(f.vip, vipPort), f.client)
	}
}

// heldFlow is a connection through the daemon that stays open.
type heldFlow struct {
	net.Conn
	r *bufio.Reader
}

func (b *box) hold(t *testing.T) heldFlow {
	t.Helper()
	c, err := b.l.Client.Dial(t.Context(), "tcp", at(families[0].vip, vipPort))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(patience))
	flow := heldFlow{c, bufio.NewReader(c)}
	if _, err := flow.r.ReadString('\n'); err != nil { // the peer's address
		t.Fatal(err)
	}
	return flow
}

// lives fails the test unless the flow still carries data both ways.
func (flow heldFlow) lives(t *testing.T) {
	t.Helper()
	if _, err := fmt.Fprintln(flow, "still here"); err != nil {
		t.Fatalf("write to a flow from before: %v", err)
	}
	if line, err := flow.r.ReadString('\n'); err != nil || line != "still here\n" {
		t.Fatalf("read from a flow from before: got %q and %v", line, err)
	}
}

// testBoxUnit has the box's systemd look at the unit.
func testBoxUnit(t *testing.T, b *box) {
	out, err := b.try(t, "systemd-analyze", "verify", "--man=no", "/etc/systemd/system/tproxyd.service")
	if err != nil || strings.Contains(out, "tproxyd") {
		t.Errorf("systemd-analyze verify: %v\n%s", err, out)
	}
}

// testBoxStart connects once, without a second try, when start has returned.
func testBoxStart(t *testing.T, b *box) {
	b.start(t)
	b.serves(t)
	if uid := b.run(t, "stat", "--format=%u", fmt.Sprintf("/proc/%d", b.pid(t))); uid == "0" {
		t.Error("the daemon runs as root")
	}
}

// testBoxLimits asks for more than LimitNOFILE, or the machine, allows.
func testBoxLimits(t *testing.T, b *box) {
	b.write(t, configPath, configWith(fmt.Sprintf("max_connections = %d", moreConnections), ""), 0o644)
	b.start(t)
	effective := int(metric(t, b.l, "tproxyd_max_connections"))
	if effective >= moreConnections {
		t.Fatalf("%d connections allowed: more than descriptors", effective)
	}
	journal := b.journal(t)
	for line := range strings.Lines(journal) {
		if strings.Contains(line, "warn") && strings.Contains(line, strconv.Itoa(effective)) &&
			strings.Contains(line, strconv.Itoa(moreConnections)) {
			return
		}
	}
	t.Errorf("no warning with both %d and %d in:\n%s", moreConnections, effective, journal)
}

func testBoxReload(t *testing.T, b *box) {
	pid := b.start(t)
	flow := b.hold(t)
	b.write(t, configPath, configWith("", oneMoreService), 0o644)
	b.run(t, "systemctl", "reload", "tproxyd")
	netnstest.Eventually(t, patience, func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), impatience)
		defer cancel()
		_, err := exchange(ctx, b.l.Client, "", at(families[0].vip, 4443))
		return err == nil
	}, "the new service answers")
	flow.lives(t)
	b.serves(t)
	if now := b.pid(t); now != pid {
		t.Errorf("reload replaced process %d by %d", pid, now)
	}
}

// testBoxAnnounce has the daemon use all that announcements need.
func testBoxAnnounce(t *testing.T, b *box) {
	b.write(t, configPath, configWith("", announcedService), 0o644)
	b.start(t)
	netnstest.Eventually(t, patience, func() bool {
		if metric(t, b.l, `tproxyd_announcement_failures_total{service="extra"}`) > 0 {
			t.Fatalf("announcing fails:\n%s", b.journal(t))
		}
		return metric(t, b.l, `tproxyd_announcements_total{service="extra"}`) > 0
	}, "the address is announced")
}

// testBoxReloadBad breaks the file: the reload fails, and the daemon goes on
// with what it has.
func testBoxReloadBad(t *testing.T, b *box) {
	pid := b.start(t)
	flow := b.hold(t)
	b.write(t, configPath, configWith("colour = 1", ""), 0o644)
	if out, err := b.try(t, "systemctl", "reload", "tproxyd"); err == nil {
		t.Errorf("systemctl reload accepted a bad file:\n%s", out)
	}
	flow.lives(t)
	b.serves(t)
	if state, now := b.property(t, "ActiveState"), b.pid(t); state != "active" || now != pid {
		t.Errorf("the unit is %s with process %d, want active with %d", state, now, pid)
	}
	if journal := b.journal(t); !strings.Contains(journal, "tproxyd.toml") || !strings.Contains(journal, "colour") {
		t.Errorf("the journal does not name file and key:\n%s", journal)
	}
}

// testBoxKill ends the daemon in ways that it cannot answer: SIGABRT is also how
// it ends when it crashes by itself.
func testBoxKill(t *testing.T, b *box) {
	b.start(t)
	for _, name := range []string{"KILL", "ABRT"} {
		pid := b.pid(t)
		b.signal(t, pid, name)
		b.restarted(t, pid)
	}
}

// testBoxWatchdog stops the process, which then feeds the watchdog no more.
func testBoxWatchdog(t *testing.T, b *box) {
	b.dropIn(t, "WatchdogSec=2s\n")
	pid := b.start(t)
	b.signal(t, pid, "STOP")
	b.restarted(t, pid)
	if journal := b.journal(t); !strings.Contains(journal, "atchdog timeout") {
		t.Errorf("no watchdog timeout in:\n%s", journal)
	}
}

func (b *box) signal(t *testing.T, pid int, name string) {
	t.Helper()
	b.run(t, "kill", "-"+name, strconv.Itoa(pid))
}

// restarted waits until another process serves in the place of pid.
func (b *box) restarted(t *testing.T, pid int) {
	t.Helper()
	netnstest.Eventually(t, patience, func() bool {
		now := b.pid(t)
		return now != 0 && now != pid && b.property(t, "ActiveState") == "active"
	}, "the unit is active again with another process")
	b.serves(t)
}

// testBoxDrain stops the unit while a flow is open: nothing new gets in, the
// flow goes on, and the daemon ends with it.
func testBoxDrain(t *testing.T, b *box) {
	b.start(t)
	flow := b.hold(t)
	b.run(t, "systemctl", "stop", "--no-block", "tproxyd")
	netnstest.Eventually(t, patience, func() bool {
		return b.run(t, "ss", "-Hltn", "sport", "443") == ""
	}, "the listeners are closed")
	silent(t, b.l.Client, "", at(families[0].vip, vipPort))
	flow.lives(t)
	flow.Close()
	netnstest.Eventually(t, patience, func() bool {
		return b.property(t, "ActiveState") == "inactive"
	}, "the daemon ends after its last flow")
	if result := b.property(t, "Result"); result != "success" {
		t.Errorf("stopped with result %q\n%s", result, b.journal(t))
	}
}

// testBoxSocket talks to the daemon over a socket in the unit's runtime
// directory, which goes with the daemon.
func testBoxSocket(t *testing.T, b *box) {
	const socket = "/run/tproxyd/control.sock"
	b.write(t, configPath, strings.Replace(configWith("", ""), "[admin]\n", "[admin]\nsocket = \""+socket+"\"\n", 1), 0o644)
	b.start(t)
	if out := b.run(t, "tproxyd", "status", "--check", "--socket", socket); !strings.HasPrefix(out, "ok: ready") {
		t.Errorf("status --check: %s", out)
	}
	if mode := b.run(t, "stat", "--format=%a", socket); mode != "660" {
		t.Errorf("the socket has mode %s", mode)
	}
	b.run(t, "systemctl", "stop", "tproxyd")
	if out, err := b.try(t, "test", "-e", socket); err == nil {
		t.Errorf("the socket is left behind: %s", out)
	}
}

// testBoxNoCapability takes away one capability after the other.
func testBoxNoCapability(t *testing.T, b *box) {
	for _, tt := range []struct{ missing, left string }{
		{"CAP_NET_RAW", "CAP_NET_BIND_SERVICE"},
		{"CAP_NET_BIND_SERVICE", "CAP_NET_RAW"},
	} {
		b.dropIn(t, "Restart=no\nAmbientCapabilities=\nAmbientCapabilities="+tt.left+"\n")
		// The first unprivileged port is a setting of the network namespace.
		if err := b.l.Proxy.Sysctl("ipv4.ip_unprivileged_port_start", "1024"); err != nil {
			t.Fatal(err)
		}
		out, err := b.try(t, "systemctl", "start", "tproxyd")
		if err == nil {
			t.Errorf("the unit starts without %s\n%s", tt.missing, out)
		}
		var named []string
		journal := b.journal(t)
		for line := range strings.Lines(journal) {
			if strings.Contains(line, tt.missing) {
				named = append(named, line)
			}
		}
		if len(named) != 1 {
			t.Errorf("%d lines name %s, want 1:\n%s", len(named), tt.missing, journal)
		}
		if status := b.property(t, "ExecMainStatus"); status != "1" {
			t.Errorf("without %s: exit status %s, want 1", tt.missing, status)
		}
		b.reset(t)
	}
}

// testBoxBadFile starts with a file that no restart makes better.
func testBoxBadFile(t *testing.T, b *box) {
	b.write(t, configPath, configWith("colour = 1", ""), 0o644)
	if out, err := b.try(t, "systemctl", "start", "tproxyd"); err == nil {
		t.Errorf("the unit starts with a bad file\n%s", out)
	}
	status, restarts, state := b.property(t, "ExecMainStatus"), b.property(t, "NRestarts"), b.property(t, "ActiveState")
	if status != "2" || restarts != "0" || state != "failed" {
		t.Errorf("exit status %s, %s restarts, %s; want 2, 0 and failed", status, restarts, state)
	}
}
