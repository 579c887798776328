package main

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tproxyd/tproxyd/internal/admin"
	"github.com/tproxyd/tproxyd/internal/lab"
	"github.com/tproxyd/tproxyd/internal/netnstest"
	"golang.org/x/net/dns/dnsmessage"
	"golang.org/x/sys/unix"
)

// flows are those that the daemon lists for the arguments.
func (d *process) flows(args ...string) (list admin.FlowList) {
	d.t.Helper()
	text := d.command(exitOK, append([]string{"flows", "--json"}, args...)...)
	if err := json.Unmarshal([]byte(text), &list); err != nil {
		d.t.Fatalf("%v: %s", err, text)
	}
	return list
}

// TestSteer changes backends over the socket and over TCP, with reloads in
// between.
func TestSteer(t *testing.T) {
	b := newBed(t)
	dir := t.TempDir()
	socket := filepath.Join(dir, "control.sock")
	text := func(weight int, more string) string {
		return head("socket = \""+socket+"\"\nsocket_mode = \"0600\"") +
			vipService("web", "tcp", 81, healthBy("tcp", quick, "port = 80"), more,
				backendAt("one", lab.ServerIP4+":80", fmt.Sprintf("weight = %d", weight)), backendAt("two", lab.Server2IP4+":80"))
	}
	d := b.start(text(3, ""), options{})
	if info, err := os.Lstat(socket); err != nil || info.Mode() != os.ModeSocket|0o600 {
		t.Errorf("socket: %v, %v", info, err)
	}
	set := func(want int, backend string, args ...string) string {
		t.Helper()
		return d.command(want, append([]string{"backend", "set", "--service", "web", "--backend", backend}, args...)...)
	}
	for i, where := range [][]string{{"--socket", socket}, {"--address", adminAddress}} {
		wantText(t, set(exitOK, "one", append(where, "--weight", fmt.Sprint(20+i))...), fmt.Sprintf("%d (changed)", 20+i))
		d.metrics().want(t, float64(20+i), "backend_weight", "service=web", "backend=one")
		wantText(t, set(exitOK, "two", append(where, "--state", "drain")...), "drain", "set by the API")
		for range 6 {
			if err := b.talk(lab.VIP4 + ":81"); err != nil {
				t.Error(err)
			}
		}
		d.metrics().want(t, 0, "backend_connections_total", "backend=two")
		set(exitOK, "two", append(where, "--state", "ready")...)
		if why := d.command(exitOK, "backend", "list"); strings.Contains(why, "API") {
			t.Errorf("a backend that is ready again still says that it was set:\n%s", why)
		}
	}
	wantText(t, set(exitFailed, "none", "--weight", "1"), "one", "two")
	wantText(t, set(exitOK, "two", "--state", "maintenance"), "maintenance")
	d.until("web", "two", "maintenance")
	d.checked("web", "ok", 2) // one that began before may end
	checks := func() float64 { return d.metrics().sum("tproxyd_healthcheck_total", "backend=two") }
	before := checks()
	d.checked("web", "ok", 5)
	if now := checks(); now != before {
		t.Errorf("%v checks of a backend in maintenance", now-before)
	}

	// The change outlives a reload that is not about the backend.
	m := d.wantReload(text(3, "  [service.admission]\n  deny = [\"192.0.2.0/24\"]"), true)
	m.want(t, 21, "backend_weight", "service=web", "backend=one")
	if got := m.stateOf("web", "two"); got != "maintenance" {
		t.Errorf("two is %s after a reload", got)
	}
	d.logged("what was changed at run time about a backend outlives the reload")
	m = d.wantReload(text(5, ""), true)
	m.want(t, 5, "backend_weight", "service=web", "backend=one")
	d.logged("the file has changed a backend: what was changed at run time about it no longer holds")
	if got := m.stateOf("web", "two"); got != "maintenance" {
		t.Errorf("two is %s after a reload that has changed one", got)
	}
	set(exitOK, "two", "--state", "ready")
	set(exitOK, "one", "--weight", "8")
	set(exitOK, "one", "--weight", "default")
	d.until("web", "two", "up").want(t, 5, "backend_weight", "service=web", "backend=one")
	if list := d.command(exitOK, "backend", "list"); strings.Contains(list, "changed") {
		t.Errorf("all is as the file has it, and yet:\n%s", list)
	}

	set(exitOK, "one", "--state", "drain")
	set(exitOK, "two", "--weight", "0")
	wantText(t, d.command(exitFailed, "status", "--check"), "one (drain: set by the API)", "two (drain: its weight is 0)")
	if code := d.terminate(); code != exitOK {
		t.Errorf("exit code %d", code)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	wantText(t, d.command(exitFailed, "status", "--check"), "is the daemon running?")
}

// TestFlows lists flows, and cuts one.
func TestFlows(t *testing.T) {
	b := newBed(t)
	d := b.start(configuration("", ""), options{})
	first := b.open(targets["vip4"])
	second := b.open(targets["intercept6"])
	third := b.open(targets["vip4"])
	for range 10 {
		if err := ping(second); err != nil {
			t.Fatal(err)
		}
	}
	if all := d.flows(); all.Total != 3 || all.Matched != 3 || len(all.Flows) != 3 {
		t.Errorf("flows %+v", all)
	}
	local := func(c net.Conn) string { return c.LocalAddr().String() }
	for _, tt := range []struct {
		args string
		want []string
	}{
		{"--service web --sort id", nil},
		{"--service egress", []string{local(second)}},
		{"--client " + lab.ClientIP6, []string{local(second)}},
		{"--client 2001:db8::/32 --state relaying", []string{local(second)}},
		{"--backend web4 --sort age", []string{local(first), local(third)}},
		{"--sort bytes --limit 1", []string{local(second)}},
		{"--protocol udp", []string{}},
		{"--state queued", []string{}},
	} {
		list := d.flows(strings.Fields(tt.args)...)
		var got []string
		for _, f := range list.Flows {
			got = append(got, f.Client.String())
		}
		if tt.want == nil && len(got) == 2 {
			continue
		}
		if strings.Join(got, " ") != strings.Join(tt.want, " ") {
			t.Errorf("flows %s: %v, want %v", tt.args, got, tt.want)
		}
	}
	victim := d.flows("--client", lab.ClientIP4, "--sort", "age", "--limit", "1").Flows[0]
	d.command(exitOK, "flows", "cut", fmt.Sprintf("%016x", uint64(victim.ID)))
	wantReset(t, first)
	for _, c := range []net.Conn{second, third} {
		if err := ping(c); err != nil {
			t.Errorf("a flow that was not cut: %v", err)
		}
	}
	wantText(t, d.command(exitFailed, "flows", "cut", fmt.Sprintf("%016x", uint64(victim.ID))), "it has ended")

	d.command(exitOK, "status", "--check")
	d.signal(unix.SIGTERM)
	d.logged("draining")
	wantText(t, d.command(exitFailed, "status", "--check"), "not ready: draining")
	wantText(t, d.command(exitFailed, "backend", "set", "--service", "web", "--backend", "web4", "--weight", "2"), "draining")
	closeAll(t, second, third)
	if code := d.exit(); code != exitOK {
		t.Errorf("exit code %d", code)
	}
}

// TestReadOnly changes nothing over a TCP address that may not, and does over
// the socket; a reload changes that, and moves the socket.
func TestReadOnly(t *testing.T) {
	b := newBed(t)
	dir := t.TempDir()
	text := func(write bool, socket string) string {
		return head(fmt.Sprintf("write = %v\nsocket = %q", write, filepath.Join(dir, socket))) + webService
	}
	d := b.start(text(false, "a"), options{})
	set := []string{"backend", "set", "--service", "web", "--backend", "web4", "--weight", "2"}
	wantText(t, d.command(exitFailed, append(set, "--address", adminAddress)...), "read-only")
	post := func() int {
		t.Helper()
		resp, err := http.Post("http://"+adminAddress+"/api/v1/services/web/backends/web4", "application/json", strings.NewReader(`{"weight": 3}`))
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		http.DefaultClient.CloseIdleConnections()
		return resp.StatusCode
	}
	if code := post(); code != http.StatusForbidden {
		t.Errorf("status %d", code)
	}
	d.command(exitOK, set...)
	d.wantReload(text(true, "b"), true)
	if code := post(); code != http.StatusOK {
		t.Errorf("status %d after a reload", code)
	}
	d.command(exitOK, set...)
	netnstest.Eventually(t, patience, func() bool {
		_, err := os.Lstat(filepath.Join(dir, "a"))
		return os.IsNotExist(err)
	}, "the socket is where it was")
	// One that cannot be is refused, and the daemon goes on with what it has.
	d.wantReload(text(true, "no/such/directory"), false)
	d.command(exitOK, set...)
}

// TestAdmission has lists in files, which a reload reads again though the
// configuration itself has not changed.
func TestAdmission(t *testing.T) {
	b := newBed(t)
	list := filepath.Join(t.TempDir(), "deny.txt")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(list, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("# nobody yet\n")
	text := head("") + vipService("web", "tcp", 81, fmt.Sprintf("[service.admission]\ndeny_file = %q", list), backendAt("one", lab.ServerIP4+":80"))
	d := b.start(text, options{})
	held := b.open(lab.VIP4 + ":81")
	write(lab.ClientIP4 + "/32 # you know why\n")
	d.wantReload(text, true)
	if err := b.talk(lab.VIP4 + ":81"); err == nil {
		t.Error("a client that is denied is served")
	}
	if m := d.metrics(); m.sum("tproxyd_connections_rejected_total", "service=web") != 1 {
		t.Errorf("rejected: %v", m["tproxyd_connections_rejected_total"])
	}
	if err := ping(held); err != nil {
		t.Errorf("a flow from before: %v", err)
	}
	write("nonsense\n")
	d.wantReload(text, false)
	d.logged(list + ":1")
	write("")
	d.wantReload(text, true)
	if err := b.talk(lab.VIP4 + ":81"); err != nil {
		t.Error(err)
	}
	closeAll(t, held)
}

// balancing are the metrics of backends' health, queues and names.
var balancing = map[string][]string{
	"tproxyd_backend_up":                   {"backend", "service"},
	"tproxyd_backend_state":                {"backend", "service", "state"},
	"tproxyd_backend_weight":               {"backend", "service"},
	"tproxyd_backend_return_path_ok":       {"backend", "service"},
	"tproxyd_backend_queue_length":         {"backend", "service"},
	"tproxyd_ejections_total":              {"backend", "reason", "service"},
	"tproxyd_healthcheck_total":            {"backend", "result", "service"},
	"tproxyd_healthcheck_duration_seconds": {"backend", "service"},
	"tproxyd_queue_length":                 {"service"},
	"tproxyd_queue_wait_seconds":           {"service"},
	"tproxyd_resolver_queries_total":       {"result"},
	"tproxyd_resolver_endpoints":           {"name"},
}

// TestQueue fills a backend and the queue for it, with all else switched on
// too, and has promtool look at the metrics.
func TestQueue(t *testing.T) {
	b := newBed(t)
	z := &zone{records: map[string][]dnsmessage.ResourceBody{"A web.example.": {address4(lab.ServerIP4)}}}
	serveDNS(t, b.Proxy, nameServer, z.answer)
	d := b.start(head("")+fmt.Sprintf(resolverTable, "5s")+
		vipService("web", "tcp", 81, "queue_size = 1\nqueue_timeout = \"1m\"\nslow_start = \"1s\"\npanic = \"open\"",
			healthBy("tcp", quick, `check_source = "spoof"`), "[service.ejection]\n[service.admission]\nmax_connections_per_client = 9",
			backendAt("one", lab.ServerIP4+":80", "max_connections = 1"))+
		vipService("names", "tcp", 82, backendAt("web", "web.example:80")), options{})
	first := b.open(lab.VIP4 + ":81")
	second := b.dial(lab.VIP4 + ":81")
	if _, err := second.Write([]byte("are you there?")); err != nil {
		t.Fatal(err)
	}
	m := d.waitMetrics(func(m metrics) bool { return m.sum("tproxyd_queue_length", "service=web") == 1 }, "a flow waits")
	m.want(t, 1, "backend_queue_length", "service=web", "backend=one")
	if list := d.flows("--state", "queued"); len(list.Flows) != 1 || list.Flows[0].Client.String() != second.LocalAddr().String() {
		t.Errorf("queued flows %+v", list)
	}
	if err := b.talk(lab.VIP4 + ":81"); err == nil {
		t.Error("a flow is served though the queue is full")
	}
	d.metrics().want(t, 1, "connections_rejected_total", "service=web", "reason=queue_full")
	d.waitMetrics(func(m metrics) bool { return m.sum("tproxyd_healthcheck_total", "service=web", "result=ok") > 0 }, "it is checked")
	closeAll(t, first)
	got := make([]byte, 14)
	if _, err := second.Read(got); err != nil || string(got) != "are you there?" {
		t.Errorf("the flow that waited: %q, %v", got, err)
	}
	m = d.waitMetrics(func(m metrics) bool { return m.sum("tproxyd_queue_length") == 0 }, "nothing waits")
	m.want(t, 1, "queue_wait_seconds", "service=web")
	d.wantWellFormed(m, balancing)
	closeAll(t, second)
}
