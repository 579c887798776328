package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/tproxyd/tproxyd/internal/admin"
	"github.com/tproxyd/tproxyd/internal/lab"
	"github.com/tproxyd/tproxyd/internal/netnstest"
	"golang.org/x/sys/unix"
)

// promised are metrics that dashboards and alerts rely on, with their labels.
var promised = map[string][]string{
	"tproxyd_build_info":                           {"goversion", "revision", "version"},
	"tproxyd_connections_total":                    {"service"},
	"tproxyd_connections_active":                   {"service"},
	"tproxyd_connections_closed_total":             {"reason", "service"},
	"tproxyd_connections_rejected_total":           {"reason", "service"},
	"tproxyd_bytes_total":                          {"direction", "path", "service"},
	"tproxyd_backend_connections_total":            {"backend", "result", "service"},
	"tproxyd_backend_connections_active":           {"backend", "service"},
	"tproxyd_backend_connect_seconds":              {"backend", "service"},
	"tproxyd_connection_duration_seconds":          {"service"},
	"tproxyd_source_conflicts_total":               {"service"},
	"tproxyd_accept_pauses_total":                  {"reason"},
	"tproxyd_pipes":                                {"state"},
	"tproxyd_config_last_reload_success":           nil,
	"tproxyd_config_last_reload_timestamp_seconds": nil,
	"tproxyd_config_reload_failures_total":         nil,
	"tproxyd_log_dropped_total":                    nil,
	"tproxyd_access_log_dropped_total":             nil,
	"go_goroutines":                                nil,
	"process_open_fds":                             nil,
}

// exchange sends n bytes on a connection of its own, gets them back and ends it.
func (b *bed) exchange(target string, n int) {
	b.t.Helper()
	c := b.dial(target)
	sent := make(chan error, 1)
	go func() {
		_, err := c.Write(make([]byte, n))
		if err == nil {
			err = c.CloseWrite()
		}
		sent <- err
	}()
	got, err := io.Copy(io.Discard, c)
	if sendErr := <-sent; err != nil || sendErr != nil || got != int64(n) {
		b.t.Errorf("%s: sent %d bytes: %v; got %d back: %v", target, n, sendErr, got, err)
	}
	closeAll(b.t, c)
}

// TestMetrics compares the counters with what has been done, to the byte.
func TestMetrics(t *testing.T) {
	b := newBed(t)
	d := b.start(configuration("", ""), options{})
	const small, large = 100, 3 << 20
	for _, target := range targets {
		b.exchange(target, small)
		b.exchange(target, large)
	}
	held := b.open(targets["vip4"])
	refused := "[" + lab.ForeignIP6 + "]:81" // nobody listens there
	// It says nothing: what came before the refusal would count as bytes in.
	if c, err := b.tryDial(refused); err == nil {
		if n, err := c.Read(make([]byte, 1)); err == nil || err == io.EOF { //nolint:errorlint // Read returns it as it is
			t.Errorf("%s answers with %d bytes, %v", refused, n, err)
		}
		closeAll(t, c)
	}
	if m := d.metrics(); m.sum("tproxyd_connections_active", "service=web") != 1 || m.sum("tproxyd_backend_connections_active", "service=web", "backend=web4") != 1 {
		t.Error("the connection that is open does not show")
	}
	closeAll(t, held)
	m := d.idle()

	const pinged = float64(len("are you there?"))
	for _, want := range []struct {
		value  float64
		name   string
		labels []string
	}{
		{5, "connections_total", []string{"service=web"}},
		{5, "connections_total", []string{"service=egress"}},
		{5, "connections_closed_total", []string{"service=web"}},
		{5, "connections_closed_total", []string{"service=web", "reason=client_close"}},
		{5, "connections_closed_total", []string{"service=egress"}},
		{4, "connections_closed_total", []string{"service=egress", "reason=client_close"}},
		{1, "connections_closed_total", []string{"service=egress", "reason=connect_refused"}},
		{0, "connections_rejected_total", nil},
		{2 * (small + large), "bytes_total", []string{"service=egress", "direction=in"}},
		{2 * (small + large), "bytes_total", []string{"service=egress", "direction=out"}},
		{2*(small+large) + pinged, "bytes_total", []string{"service=web", "direction=in"}},
		{2*(small+large) + pinged, "bytes_total", []string{"service=web", "direction=out"}},
		{3, "backend_connections_total", []string{"service=web", "backend=web4", "result=ok"}},
		{2, "backend_connections_total", []string{"service=web", "backend=web6", "result=ok"}},
		{4, "backend_connections_total", []string{"service=egress", "backend=original", "result=ok"}},
		{1, "backend_connections_total", []string{"service=egress", "backend=original", "result=refused"}},
		{10, "backend_connections_total", nil},
		{0, "backend_connections_active", nil},
		{3, "backend_connect_seconds", []string{"service=web", "backend=web4"}},
		{4, "backend_connect_seconds", []string{"service=egress"}},
		{5, "connection_duration_seconds", []string{"service=web"}},
		{5, "connection_duration_seconds", []string{"service=egress"}},
		{0, "source_conflicts_total", nil},
		{0, "accept_pauses_total", nil},
		{0, "log_dropped_total", nil},
		{0, "access_log_dropped_total", nil},
		{1, "config_last_reload_success", nil},
	} {
		m.want(t, want.value, want.name, want.labels...)
	}
	d.wantWellFormed(m, promised)
}

// TestStatus compares the status page and its JSON with what is going on.
func TestStatus(t *testing.T) {
	b := newBed(t)
	d := b.start(configuration("max_connections = 77", ""), options{})
	b.exchange(targets["vip4"], 1000)
	held := b.open(targets["vip6"])
	text, err := d.get("/api/v1/status")
	if err != nil {
		t.Fatal(err)
	}
	var s admin.Status
	if err := json.Unmarshal([]byte(text), &s); err != nil {
		t.Fatal(err)
	}
	if !s.Ready || s.ReadyReason != "" || s.PID != d.cmd.Process.Pid || s.Version != version || s.Config.Path != d.config ||
		!s.Config.LastReloadSuccess || s.Config.LastError != "" || s.Limits.MaxConnections != 77 || len(s.Workers) != 2 {
		t.Errorf("status %s", text)
	}
	if s.Connections.Active != 1 || s.Connections.Total != 2 || len(s.Services) != 2 {
		t.Fatalf("status %s", text)
	}
	web := s.Services[0]
	if web.Name != "web" || web.Mode != "vip" || web.Source != "client-ip" || web.Active != 1 || web.Total != 2 ||
		web.BytesIn != 1014 || web.BytesOut != 1014 || web.Draining || len(web.Listen) != 2 || len(web.Backends) != 2 {
		t.Errorf("service %+v", web)
	}
	if six := web.Backends[1]; six.Name != "web6" || six.Address != "["+lab.ServerIP6+"]:80" || six.Active != 1 || six.Total != 1 || six.Failed != 0 {
		t.Errorf("backend %+v", six)
	}
	if egress := s.Services[1]; len(egress.Backends) != 1 || egress.Backends[0].Address != "original destination" {
		t.Errorf("service %+v", egress)
	}
	page, err := d.get("/")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"web", "egress", "web6", lab.ServerIP4 + ":80", "[" + lab.VIP6 + "]:80", d.config} {
		if !strings.Contains(page, want) {
			t.Errorf("the status page does not show %s", want)
		}
	}
	if _, err := d.get("/debug/pprof/"); err == nil {
		t.Error("the admin address gives away profiles")
	}
	closeAll(t, held)
}

// TestHealth follows the daemon from start to end by the two endpoints.
func TestHealth(t *testing.T) {
	b := newBed(t)
	d := b.start(configuration("", ""), options{})
	for _, path := range []string{"/healthz", "/readyz"} {
		if text, err := d.get(path); err != nil || text != "ok\n" {
			t.Errorf("%s: %q, %v", path, text, err)
		}
	}
	held := b.open(targets["vip4"])
	d.signal(unix.SIGTERM)
	netnstest.Eventually(t, patience, func() bool {
		_, err := d.get("/readyz")
		return err != nil && err.Error() == "503: draining"
	}, "/readyz says draining")
	if _, err := d.get("/healthz"); err != nil {
		t.Errorf("/healthz while draining: %v", err)
	}
	if page, err := d.get("/api/v1/status"); err != nil || !strings.Contains(page, `"draining": true`) {
		t.Errorf("status while draining: %v\n%s", err, page)
	}
	closeAll(t, held)
	if code := d.exit(); code != exitOK {
		t.Errorf("exit code %d", code)
	}
}

// TestNoAdmin switches the admin address off, and on by a reload.
func TestNoAdmin(t *testing.T) {
	b := newBed(t)
	on := configuration("", "")
	off := strings.Replace(on, adminAddress, "", 1)
	d := b.launch(off, options{})
	d.logged("tproxyd is ready")
	if err := b.talk(targets["vip4"]); err != nil {
		t.Error(err)
	}
	if _, err := d.get("/readyz"); err == nil {
		t.Error("there is an admin address")
	}
	d.configure(on)
	d.signal(unix.SIGHUP)
	netnstest.Eventually(t, patience, func() bool {
		_, err := d.get("/readyz")
		return err == nil
	}, "there is an admin address")
}

// TestSlowAdminClients has 500 clients that never end their request.
func TestSlowAdminClients(t *testing.T) {
	b := newBed(t)
	d := b.start(configuration("", ""), options{})
	held := b.open(targets["vip4"])
	var slow []net.Conn
	defer func() {
		for _, c := range slow {
			c.Close()
		}
	}()
	for i := range 500 {
		c, err := net.Dial("tcp", adminAddress)
		if err != nil {
			t.Fatal(err)
		}
		slow = append(slow, c)
		// Cut meanwhile, maybe, which is the daemon's right.
		_, _ = fmt.Fprintf(c, "GET /metrics HTTP/1.1\r\nHost: %d\r\nX-Slow: ", i)
		if i%50 != 0 {
			continue
		}
		if err := ping(held); err != nil {
			t.Fatalf("with %d slow clients: %v", i, err)
		}
		for name, target := range targets {
			if err := b.talk(target); err != nil {
				t.Errorf("%s with %d slow clients: %v", name, i, err)
			}
		}
	}
	m := d.metrics()
	if got := m.sum("process_open_fds"); got > 300 {
		t.Errorf("%v descriptors with 500 slow clients", got)
	}
	huge, err := http.NewRequest(http.MethodGet, "http://"+adminAddress+"/metrics", nil)
	if err != nil {
		t.Fatal(err)
	}
	huge.Header.Set("X-Huge", strings.Repeat("x", 1<<20))
	if resp, err := http.DefaultTransport.RoundTrip(huge); err == nil {
		resp.Body.Close()
		if resp.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
			t.Errorf("a header of 1 MiB: %s", resp.Status)
		}
	}
	http.DefaultTransport.(*http.Transport).CloseIdleConnections()
	d.metrics()
	if err := ping(held); err != nil {
		t.Error(err)
	}
	closeAll(t, held)
}
