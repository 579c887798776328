package main

import (
	"encoding/json"
	"net"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/tproxyd/tproxyd/internal/lab"
	"github.com/tproxyd/tproxyd/internal/netnstest"
)

// records are the lines of the access log once there are n.
func (d *process) records(n int) []string {
	d.t.Helper()
	var lines []string
	netnstest.Eventually(d.t, patience, func() bool {
		lines = d.stdout.lines()
		lines = lines[:len(lines)-1]
		return len(lines) >= n
	}, "the access log has its lines")
	if len(lines) != n {
		d.t.Fatalf("%d lines of the access log, want %d:\n%s", len(lines), n, strings.Join(lines, "\n"))
	}
	return lines
}

// TestAccessLog switches the format by reloads: JSON, HAProxy, none, JSON.
func TestAccessLog(t *testing.T) {
	b := newBed(t)
	d := b.start(configuration("", `access = "json"`), options{})
	b.exchange(targets["vip4"], 5000)
	d.idle()
	wantJSON(t, d.records(1)[0])

	// A flow is recorded if records were on when it began, in the format of
	// when it ends.
	held := b.open(targets["vip6"])
	d.wantReload(configuration("", `access = "haproxy"`), true)
	b.exchange(targets["intercept6"], 5000)
	closeAll(t, held)
	d.idle()
	haproxy := regexp.MustCompile(`\S+:\d+ \[[^]]+\] (web|egress) (web/web6|egress/original) -?\d+/-?\d+/\d+ (14|5000) -- \d+/\d+/\d+/\d+/\d+ 0/0$`)
	for _, line := range d.records(3)[1:] {
		if !haproxy.MatchString(line) {
			t.Errorf("not a line of HAProxy's tcplog: %s", line)
		}
	}

	d.wantReload(configuration("", `access = "off"`), true)
	b.exchange(targets["vip4"], 5000)
	d.idle()
	d.wantReload(configuration("", `access = "json"`), true)
	b.exchange(targets["vip4"], 5000)
	d.idle()
	wantJSON(t, d.records(4)[3])

	if dropped := d.metrics().sum("tproxyd_access_log_dropped_total"); dropped != 0 {
		t.Errorf("%v records were lost", dropped)
	}
	if code := d.terminate(); code != exitOK {
		t.Errorf("exit code %d", code)
	}
	d.records(4)
	wantLog(t, d.stderr.lines())
}

func wantJSON(t *testing.T, line string) {
	t.Helper()
	var r map[string]any
	if err := json.Unmarshal([]byte(line), &r); err != nil {
		t.Fatalf("%v: %s", err, line)
	}
	for field, want := range map[string]any{
		"service": "web", "protocol": "tcp", "destination": targets["vip4"], "backend": net.JoinHostPort(lab.ServerIP4, port),
		"source_policy": "client-ip", "bytes_in": 5000.0, "bytes_out": 5000.0,
		"path_in": "copy", "path_out": "copy", "reason": "client_close", "term": "--",
	} {
		if r[field] != want {
			t.Errorf("%s is %v, want %v: %s", field, r[field], want, line)
		}
	}
	for _, field := range []string{"client", "upstream_source"} {
		if host, _, err := net.SplitHostPort(r[field].(string)); err != nil || host != lab.ClientIP4 {
			t.Errorf("%s is %v, want the client's address: %s", field, r[field], line)
		}
	}
	if id, _ := r["flow_id"].(string); len(id) != 16 {
		t.Errorf("flow_id is %v, want 16 digits", r["flow_id"])
	}
	if _, err := time.Parse(time.RFC3339Nano, r["time"].(string)); err != nil {
		t.Error(err)
	}
	for _, field := range []string{"queue_ms", "connect_ms", "duration_ms"} {
		if v, ok := r[field].(float64); !ok || v < 0 {
			t.Errorf("%s is %v", field, r[field])
		}
	}
}

// wantLog wants lines of the log on stderr, and no access record among them.
func wantLog(t *testing.T, lines []string) {
	t.Helper()
	for _, line := range lines[:len(lines)-1] {
		var entry struct{ Level, Time, Msg string }
		if err := json.Unmarshal([]byte(line), &entry); err != nil || entry.Level == "" || entry.Time == "" || entry.Msg == "" {
			t.Errorf("not a line of the log: %s (%v)", line, err)
		}
	}
}

// TestConsoleLog has the log for people, on stderr as well, and its level
// changed by a reload.
func TestConsoleLog(t *testing.T) {
	b := newBed(t)
	d := b.start(configuration("", "format = \"console\"\naccess = \"off\""), options{})
	d.logged("info\ttproxyd is ready")
	d.wantReload(configuration("", "format = \"console\"\naccess = \"off\"\nlevel = \"error\""), true)
	before := strings.Count(d.stderr.String(), "\n")
	d.wantReload(configuration("", "format = \"console\"\naccess = \"off\"\nlevel = \"error\"\n# other\n"), true)
	d.wantReload("nonsense", false)
	d.logged("error\tconfiguration refused")
	if got := strings.Count(d.stderr.String(), "\n"); got != before+1 {
		t.Errorf("%d lines of level error, want 1:\n%s", got-before, &d.stderr)
	}
	if code := d.terminate(); code != exitOK || d.stdout.String() != "" {
		t.Errorf("exit code %d, stdout %q", code, &d.stdout)
	}
}
