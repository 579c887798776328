package main

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/tproxyd/tproxyd/internal/admin"
	"github.com/tproxyd/tproxyd/internal/golden"
	"go.uber.org/zap"
)

// fakeDaemon is the admin side of a daemon in the middle of its life.
type fakeDaemon struct{ changed string }

func (*fakeDaemon) status() admin.Status {
	started := time.Date(2026, 2, 3, 4, 5, 6, 0, time.UTC)
	return admin.Status{
		Version: "1.2.3", PID: 42, Ready: true, Started: started, UptimeSeconds: 273840,
		Config:      admin.ConfigStatus{Path: "/etc/tproxyd/tproxyd.toml", LastReloadSuccess: true, LastReloadTime: started.Add(time.Hour)},
		Limits:      admin.Limits{MaxConnections: 261000, MaxFlows: 1000},
		Connections: admin.Flows{Active: 3}, Flows: admin.Flows{Active: 1},
		Services: []admin.Service{
			{
				Name: "web", Mode: "vip", Protocol: "tcp", Active: 3, Total: 70, BytesIn: 1500, Listen: []string{"203.0.113.10:443", "[2001:db8::10]:443", "203.0.113.11:443"},
				Backends: []admin.Backend{
					{Name: "web-1", Address: "198.18.2.2:80", Weight: 10, Override: true, Active: 1, MaxConnections: 100, State: admin.BackendUp},
					{Name: "n/[2001:db8::1]:80", Address: "[2001:db8::1]:80", Weight: 1, State: admin.BackendDown, Reason: "check:\x1b[31m refused", Backup: true, Route: "api"},
				},
			},
			{
				Name: "all", Mode: "intercept", Protocol: "tcp", Listen: []string{"0.0.0.0:15001"},
				Backends: []admin.Backend{{Name: "original", Address: "original destination", Weight: 1, State: admin.BackendUp}},
			},
			{Name: "names", Mode: "vip", Protocol: "tcp", Listen: []string{"203.0.113.12:443"}},
			{
				Name: "dns", Mode: "vip", Protocol: "udp", Active: 1,
				Backends: []admin.Backend{
					{Name: "dns-1", Address: "198.18.2.53:53", State: admin.BackendUp},
					{Name: "dns-2", Address: "198.18.2.54:53", Weight: 1, State: admin.BackendEjected, Reason: "5 failures in a row"},
				},
			},
		},
	}
}

func (*fakeDaemon) Flows(q admin.FlowQuery) admin.FlowList {
	c := admin.NewCollector(q)
	c.Add(&admin.Flow{
		ID: 0xc0ffee, Service: "web", Protocol: "tcp", State: admin.FlowRelaying, AgeMS: 65_000, IdleMS: 350, BytesIn: 517, BytesOut: 5 << 20,
		Client: netip.MustParseAddrPort("198.18.1.2:40000"), Destination: netip.MustParseAddrPort("203.0.113.10:443"),
		Backend: netip.MustParseAddrPort("198.18.2.2:80"), BackendName: "web-1", PathIn: "copy", PathOut: "splice", Worker: 1,
	})
	c.Add(&admin.Flow{ID: 0xc0ffef, Service: "web", Protocol: "tcp", State: admin.FlowQueued, Client: netip.MustParseAddrPort("[2001:db8::1]:1")})
	return c.List()
}

func (*fakeDaemon) CutFlow(id uint64) bool { return id == 0xc0ffee }

func (f *fakeDaemon) SetBackend(service, backend string, c admin.BackendChange) (admin.Backend, error) {
	if service != "web" {
		return admin.Backend{}, admin.ErrNoService
	}
	f.changed = fmt.Sprint(service, " ", backend, " ", c.State)
	return admin.Backend{Name: backend, Address: "198.18.2.2:80", Weight: *c.Weight, Override: true, State: admin.BackendDrain, AdminState: c.State}, nil
}

// startAdmin runs the servers of s for f.
func startAdmin(t *testing.T, f *fakeDaemon, s adminSettings) *adminServers {
	t.Helper()
	well := func() error { return nil }
	a := newAdminServers(admin.Config{
		Gatherer: prometheus.NewRegistry(), Log: zap.NewNop(), Status: f.status, Control: f, Live: well, Ready: well,
	}, 8)
	t.Cleanup(a.close)
	moveAdmin(t, a, s)
	return a
}

func moveAdmin(t *testing.T, a *adminServers, s adminSettings) {
	t.Helper()
	m, err := a.prepare(s)
	if err != nil {
		t.Fatal(err)
	}
	m.commit()
}

// TestControlCommands compares what the commands print, over both ways.
func TestControlCommands(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	f := &fakeDaemon{}
	a := startAdmin(t, f, adminSettings{listen: netip.MustParseAddrPort("127.0.0.1:0"), write: true, socket: socket, mode: 0o600})
	for _, where := range []string{"--socket " + socket, "--address " + a.tcp.Addr().String()} {
		var all strings.Builder
		for _, line := range []string{
			"status", "status --service all --service web", "status --check", "status --check --service web --service all", "status --check --service none", "status --check --service names",
			"flows", "flows --limit 1 --sort id --json", "flows --state queued", "flows cut c0ffee", "flows cut 1",
			"backend list", "backend list --state down --service web --json", "backend list --service wbe",
			"backend set --service web --backend n/[2001:db8::1]:80 --weight 5 --state drain", "backend set --service wbe --backend x --weight 5",
		} {
			code, stdout, stderr := cli(t, append(strings.Fields(line), strings.Fields(where)...)...)
			fmt.Fprintf(&all, "$ tproxyd %s\n%s%sexit code %d\n\n", line, stdout, stderr, code)
		}
		golden.Compare(t, "control.golden", all.String())
		if f.changed != "web n/[2001:db8::1]:80 drain" {
			t.Errorf("%s: changed %q", where, f.changed)
		}
	}
}

func TestControlUsage(t *testing.T) {
	for line, want := range map[string]string{
		"backend":                 "want one of the commands list, set",
		"backend set --service a": "give --service, --backend",
		"backend set --service a --backend b --weight 257": "0 to 256",
		"backend set --service a --backend b --state off":  "maintenance",
		"flows --sort name":             "age, bytes, idle, id",
		"flows --limit 0":               "1 to 10000",
		"flows cut":                     "want the id",
		"status --check --json":         "not with --check",
		"status --address nowhere":      "host:port",
		"status --socket s --timeout 0": "more than 0s",
	} {
		code, stdout, stderr := cli(t, strings.Fields(line)...)
		if code != exitUsage || stdout != "" || !strings.Contains(stderr, want) {
			t.Errorf("tproxyd %s: exit code %d, stdout %q, stderr %q, want %q", line, code, stdout, stderr, want)
		}
	}
}

// TestUnreachable wants an error that says where and why, and never a hang.
func TestUnreachable(t *testing.T) {
	dir := t.TempDir()
	silent, err := net.Listen("unix", filepath.Join(dir, "silent"))
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	for line, want := range map[string]string{
		"--socket " + dir + "/none":                    dir + "/none: there is no such file",
		"--address 127.0.0.1:1":                        "address 127.0.0.1:1: connection refused: is the daemon running?",
		"--socket " + dir + "/silent --timeout 100ms":  "has not answered within 100ms",
		"--config " + dir + "/none.toml":               "give the file that the daemon runs with",
		"--socket " + dir + "/n --address 127.0.0.1:1": "no such file: is the daemon running, and with that admin.socket? See systemctl status tproxyd; address 127.0.0.1:1",
	} {
		code, stdout, stderr := cli(t, append([]string{"status", "--check"}, strings.Fields(line)...)...)
		if code != exitFailed || stdout != "" || !strings.Contains(stderr, want) {
			t.Errorf("%s: exit code %d, stdout %q, stderr %q, want %q", line, code, stdout, stderr, want)
		}
	}
}

// TestAdminMoves has the configuration change where the servers are.
func TestAdminMoves(t *testing.T) {
	dir := t.TempDir()
	s := adminSettings{socket: dir + "/a", mode: 0o600}
	a := startAdmin(t, &fakeDaemon{}, s)
	s.mode = 0o640
	moveAdmin(t, a, s)
	if info, err := os.Lstat(s.socket); err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("%v, %v", info, err)
	}
	// One that does not come about leaves nothing behind.
	taken := adminSettings{listen: netip.MustParseAddrPort("127.0.0.1:0"), socket: dir}
	if _, err := a.prepare(taken); err == nil || !strings.Contains(err.Error(), "not a socket") {
		t.Errorf("socket at a directory: %v", err)
	}
	s.socket = dir + "/b"
	m, err := a.prepare(s)
	if err != nil {
		t.Fatal(err)
	}
	m.discard()
	if _, err := os.Lstat(s.socket); !os.IsNotExist(err) {
		t.Errorf("discarded: %v", err)
	}
	moveAdmin(t, a, s)
	if code, _, stderr := cli(t, "status", "--socket", s.socket); code != exitOK {
		t.Errorf("moved: %s", stderr)
	}
	s.listen = netip.MustParseAddrPort("127.0.0.1:0")
	moveAdmin(t, a, s)
	refused := func() bool {
		code, _, stderr := cli(t, "flows", "cut", "c0ffee", "--address", a.tcp.Addr().String())
		return code == exitFailed && strings.Contains(stderr, "read-only")
	}
	if !refused() {
		t.Error("a flow is cut over an address that is read-only")
	}
	s.write = true
	moveAdmin(t, a, s)
	if refused() {
		t.Error("still read-only")
	}
	a.close()
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	http.DefaultClient.CloseIdleConnections()
}
