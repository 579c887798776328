package main

import (
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"net"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tproxyd/tproxyd/internal/lab"
	"github.com/tproxyd/tproxyd/internal/netnstest"
	"github.com/vishvananda/netlink"
	"golang.org/x/net/dns/dnsmessage"
	"golang.org/x/sys/unix"
)

// answerHTTP reads a request and answers with text; then it waits for the end
// of the other side, or not.
func answerHTTP(text string, hang bool) func(net.Conn) {
	return func(c net.Conn) {
		_, _ = c.Read(make([]byte, 4096))
		_, _ = io.WriteString(c, text)
		if hang {
			_, _ = io.Copy(io.Discard, c)
		}
	}
}

// resets ends a connection by RST when it has been asked something.
func resets(c net.Conn) {
	_, _ = c.Read(make([]byte, 4096))
	_ = c.(*net.TCPConn).SetLinger(0)
}

// serveDNS answers every question as answer says.
func serveDNS(t *testing.T, h *lab.Host, address string, answer func(dnsmessage.Question) (dnsmessage.RCode, []dnsmessage.Resource)) net.PacketConn {
	t.Helper()
	pc, err := h.ListenPacket("udp", address)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 4096)
		for {
			n, from, err := pc.ReadFrom(buf)
			if err != nil {
				return
			}
			var m dnsmessage.Message
			if m.Unpack(buf[:n]) != nil || len(m.Questions) != 1 {
				continue
			}
			reply := dnsmessage.Message{Header: dnsmessage.Header{ID: m.ID, Response: true, RecursionAvailable: true}, Questions: m.Questions}
			reply.RCode, reply.Answers = answer(m.Questions[0])
			if packed, err := reply.Pack(); err == nil {
				_, _ = pc.WriteTo(packed, from)
			}
		}
	}()
	t.Cleanup(func() {
		_ = pc.Close()
		<-done
	})
	return pc
}

// TestHealthTypes has backends that are well or ill in all sorts of ways, each
// a service of its own with the checks that are to find out.
func TestHealthTypes(t *testing.T) {
	b := newBed(t)
	const server = lab.ServerIP4
	short := strings.Replace(quick, `"10s"`, `"300ms"`, 1)
	const good = "HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nall well"
	for port, handle := range map[int]func(net.Conn){
		9002: answerHTTP(good, false), 9003: answerHTTP("", true), 9004: resets,
		9005: answerHTTP("HTTP/1.1 200 O", true), 9006: answerHTTP("HTTP/1.1 200 O", false),
		9007: answerHTTP("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n", false),
		9008: answerHTTP("SSH-2.0-whatever\r\n", true),
	} {
		b.serve(b.Server, fmt.Sprintf("%s:%d", server, port), handle)
	}
	ln, err := b.Server.Listen("tcp", server+":9009")
	if err != nil {
		t.Fatal(err)
	}
	secured := httptest.NewUnstartedServer(nil)
	secured.Listener.Close()
	secured.Listener = ln
	secured.TLS = &tls.Config{}
	secured.Config.ErrorLog = log.New(io.Discard, "", 0)
	secured.StartTLS()
	t.Cleanup(secured.Close)
	b.echoDatagrams(server + ":9010")
	serveDNS(t, b.Server, server+":9011", func(q dnsmessage.Question) (dnsmessage.RCode, []dnsmessage.Resource) {
		if q.Name.String() == "refused.example." {
			return dnsmessage.RCodeRefused, nil
		}
		return dnsmessage.RCodeSuccess, nil
	})
	tests := []struct {
		name   string
		port   int
		health string
		result string // of its checks
	}{
		{"tcp", 80, healthBy("tcp", quick), "ok"},
		{"tcp-refused", 9001, healthBy("tcp", quick), "refused"},
		{"http", 9002, healthBy("http", quick, `expect_body = "all well"`), "ok"},
		{"http-body", 9002, healthBy("http", quick, `expect_body = "all ill"`), "bad_answer"},
		{"http-hangs", 9003, healthBy("http", short), "timeout"},
		{"http-resets", 9004, healthBy("http", quick), "reset"},
		{"http-half-hangs", 9005, healthBy("http", short), "timeout"},
		{"http-half-ends", 9006, healthBy("http", quick), "reset"},
		{"http-status", 9007, healthBy("http", quick), "bad_status"},
		{"http-status-wanted", 9007, healthBy("http", quick, `expect_status = "503"`), "ok"},
		{"http-other-port", 80, healthBy("http", quick, "port = 9007"), "bad_status"},
		{"http-tls", 9009, healthBy("http", quick, "tls = true\nexpect_status = \"404\""), "ok"},
		{"tls", 9009, healthBy("tls", quick), "ok"},
		{"tls-plain", 9008, healthBy("tls", quick), "bad_answer"},
		{"tls-verified", 9009, healthBy("tls", quick, "verify = true\nserver_name = \"example.com\""), "bad_certificate"},
		{"udp", 9010, healthBy("udp", quick, `send = "ping"`, `expect = "ping"`), "ok"},
		{"udp-other", 9010, healthBy("udp", quick, `send = "ping"`, `expect = "pong"`), "bad_answer"},
		{"udp-refused", 9012, healthBy("udp", quick, `send = "ping"`), "refused"},
		{"dns", 9011, healthBy("dns", quick), "ok"},
		{"dns-refused", 9011, healthBy("dns", quick, `query = "refused.example"`), "bad_status"},
		{"dns-refused-wanted", 9011, healthBy("dns", quick, `query = "refused.example"`, `expect_rcode = "REFUSED"`), "ok"},
	}
	text := head("")
	for i, tt := range tests {
		protocol := "tcp"
		if strings.HasPrefix(tt.name, "udp") || strings.HasPrefix(tt.name, "dns") {
			protocol = "udp"
		}
		text += vipService(tt.name, protocol, 1001+i, tt.health, backendAt("one", fmt.Sprintf("%s:%d", server, tt.port)))
	}
	d := b.start(text, options{})
	for _, tt := range tests {
		if tt.result == "ok" {
			d.checked(tt.name, "ok", 1)
		} else {
			d.until(tt.name, "one", "down")
		}
	}
	m := d.metrics()
	status := d.command(exitFailed, "status", "--check")
	for _, tt := range tests {
		if got := m.sum("tproxyd_healthcheck_total", "service="+tt.name, "result="+tt.result); got == 0 {
			t.Errorf("%s: no check ended with %s:\n%s", tt.name, tt.result, &d.stderr)
		}
		up := 0.0
		if tt.result == "ok" {
			up = 1
		}
		m.want(t, up, "backend_up", "service="+tt.name, "backend=one")
		if ill := strings.Contains(status, " "+tt.name+": no backend"); ill == (up == 1) {
			t.Errorf("status --check: %s is ill: %v:\n%s", tt.name, ill, status)
		}
	}
	for service, why := range map[string]string{
		"http-status": "status 503", "tcp-refused": "connect: connection refused", "udp-other": `"pong" is not in the answer`,
		"dns-refused": "response code REFUSED, want NOERROR", "http-hangs": "no answer in time",
	} {
		wantText(t, d.command(exitOK, "backend", "list", "--service", service), "down", why)
	}
}

// TestHealthFlaps has a backend that is well every other time: that changes
// nothing. Then it ends, and comes back, with a reload in between.
func TestHealthFlaps(t *testing.T) {
	b := newBed(t)
	var turn atomic.Int64
	steady := atomic.Bool{}
	b.serve(b.Server, lab.ServerIP4+":9001", func(c net.Conn) {
		if turn.Add(1)%2 == 0 && !steady.Load() {
			answerHTTP("HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n", false)(c)
		} else {
			answerHTTP("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", false)(c)
		}
	})
	g := b.gate(lab.Server2IP4 + ":9002")
	text := func(level string) string {
		return fmt.Sprintf(configHead, "", "level = \""+level+"\"") +
			vipService("flaps", "tcp", 80, healthBy("http", quick, "rise = 2\nfall = 2\nport = 9001"), backendAt("one", lab.ServerIP4+":80")) +
			vipService("ends", "tcp", 81, healthBy("tcp", quick, "rise = 2\nfall = 2\nport = 9002"),
				backendAt("one", lab.Server2IP4+":9002"), backendAt("two", lab.Server2IP4+":80"))
	}
	d := b.start(text("info"), options{})
	d.checked("flaps", "bad_status", 10)
	d.checked("ends", "ok", 4)
	if n := d.changes(); n != 0 {
		t.Fatalf("%d changes of a backend that is well every other time:\n%s", n, &d.stderr)
	}
	b.retalk(lab.VIP4 + ":81")

	g.close()
	d.until("ends", "one", "down")
	d.until("ends", "two", "down")
	if err := b.talk(lab.VIP4 + ":81"); err == nil {
		t.Error("a service without a backend serves")
	}
	wantText(t, d.command(exitFailed, "status", "--check", "--service", "ends"), "one (down: ", "refused", "two (down: ")
	d.command(exitOK, "status", "--check", "--service", "flaps")

	d.wantReload(text("info"), true) // nothing has changed
	m := d.wantReload(text("warn"), true)
	for _, name := range []string{"one", "two"} {
		if got := m.stateOf("ends", name); got != "down" {
			t.Errorf("%s is %s after a reload, want down", name, got)
		}
	}
	d.checked("ends", "refused", 4)
	if n := d.changes(); n != 2 {
		t.Errorf("%d changes, want 2:\n%s", n, &d.stderr)
	}

	g.open()
	d.until("ends", "one", "up")
	d.until("ends", "two", "up")
	b.retalk(lab.VIP4 + ":81")
	d.command(exitOK, "status", "--check")
	if why := d.command(exitOK, "backend", "list", "--service", "ends"); strings.Contains(why, "refused") {
		t.Errorf("a backend that is up shows why it was not:\n%s", why)
	}
}

// TestReturnPath checks from the virtual address, whose answers the server
// sends elsewhere.
func TestReturnPath(t *testing.T) {
	b := newBed(t)
	short := strings.Replace(quick, `"10s"`, `"300ms"`, 1)
	d := b.start(head("")+vipService("web", "tcp", 80,
		healthBy("tcp", short, `check_source = "spoof"`), backendAt("one", lab.ServerIP4+":80")), options{})
	ok := func(want float64) func(metrics) bool {
		return func(m metrics) bool {
			return m["tproxyd_backend_return_path_ok"] != nil && m.sum("tproxyd_backend_return_path_ok", "service=web", "backend=one") == want
		}
	}
	d.waitMetrics(ok(1), "the return path is well")
	nl, err := b.Server.Netlink()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nl.Close)
	away := &netlink.Route{Dst: &net.IPNet{IP: net.ParseIP(lab.VIP4).To4(), Mask: net.CIDRMask(32, 32)}, Type: unix.RTN_BLACKHOLE}
	if err := nl.RouteAdd(away); err != nil {
		t.Fatal(err)
	}
	d.waitMetrics(ok(0), "the return path is broken")
	d.until("web", "one", "down")
	d.logged("return path broken: backend does not route replies back through this host")
	const why = "it answers " + lab.ProxyServerIP4 + " but not " + lab.VIP4
	wantText(t, d.command(exitOK, "status"), "down", why)
	wantText(t, d.command(exitFailed, "status", "--check"), why)
	if err := nl.RouteDel(away); err != nil {
		t.Fatal(err)
	}
	d.until("web", "one", "up")
	d.waitMetrics(ok(1), "the return path is well again")
	d.logged("return path works again")
}

// TestHealthPolicies has services that make different things of the same ill
// backend: they cut its flows or not, go on with it, or start it slowly.
func TestHealthPolicies(t *testing.T) {
	b := newBed(t)
	g := b.gate(lab.ServerIP4 + ":9001")
	check := healthBy("tcp", quick, "rise = 1\nfall = 1\nport = 9001")
	backend := backendAt("one", lab.ServerIP4+":80")
	d := b.start(head("")+
		vipService("keeps", "tcp", 81, check, backend)+
		vipService("cuts", "tcp", 82, `on_backend_down = "cut"`, check, backend)+
		vipService("panics", "tcp", 83, `panic = "open"`, check, backend)+
		vipService("starts", "tcp", 84, `slow_start = "1h"`, check, backend, backendAt("two", lab.Server2IP4+":80"))+
		vipService("ejects", "tcp", 85, "retries = 2\n[service.ejection]\nfailures = 2\nbase_time = \"1h\"\nmax_time = \"1h\"",
			backendAt("bad", lab.ServerIP4+":9999"), backendAt("good", lab.ServerIP4+":80")), options{})
	kept, cut := b.open(lab.VIP4+":81"), b.open(lab.VIP4+":82")
	for range 8 { // the workers take turns of their own
		if err := b.talk(lab.VIP4 + ":85"); err != nil {
			t.Error(err)
		}
	}
	m := d.until("ejects", "bad", "ejected")
	m.want(t, 1, "ejections_total", "service=ejects", "backend=bad", "reason=connect")
	wantText(t, d.command(exitOK, "status", "--service", "ejects"), "2 flows in a row failed, the last by connect")

	g.close()
	for _, service := range []string{"keeps", "cuts", "panics", "starts"} {
		d.until(service, "one", "down")
	}
	wantReset(t, cut)
	if err := ping(kept); err != nil {
		t.Errorf("the flow that is kept: %v", err)
	}
	if err := b.talk(lab.VIP4 + ":81"); err == nil {
		t.Error("a backend that is down gets a flow")
	}
	if err := b.talk(lab.VIP4 + ":83"); err != nil {
		t.Errorf("in panic: %v", err)
	}
	g.open()
	d.until("starts", "one", "starting")
	d.until("keeps", "one", "up")
	d.command(exitOK, "status", "--check")
	b.retalk(lab.VIP4 + ":84")
	closeAll(t, kept)
}

// TestStarved stops the daemon for longer than it takes to find a backend down.
func TestStarved(t *testing.T) {
	b := newBed(t)
	// Its answers come when the daemon does not run, mostly.
	b.serve(b.Server, lab.ServerIP4+":9001", func(c net.Conn) {
		_, _ = c.Read(make([]byte, 4096))
		wait(100 * time.Millisecond)
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
	})
	d := b.start(head("")+vipService("web", "tcp", 80,
		healthBy("tcp", "interval = \"20ms\"\ntimeout = \"50ms\"\nrise = 1\nfall = 3"), backendAt("one", lab.ServerIP4+":80"))+
		vipService("slow", "tcp", 81, healthBy("http", "interval = \"20ms\"\ntimeout = \"2s\"\nfall = 2\nport = 9001"), backendAt("one", lab.ServerIP4+":80")),
		options{})
	d.checked("slow", "ok", 1)
	before := d.changes()
	for range 4 {
		d.signal(unix.SIGSTOP)
		waitState(t, d, 'T')
		wait(400 * time.Millisecond)
		d.signal(unix.SIGCONT)
		d.checked("web", "ok", 2)
	}
	d.signal(unix.SIGSTOP)
	waitState(t, d, 'T')
	wait(5 * time.Second) // more than timeout * fall of both
	d.signal(unix.SIGCONT)
	d.checked("web", "ok", 3)
	d.checked("slow", "ok", 3)
	if n := d.changes() - before; n != 0 {
		t.Errorf("%d changes of backends that were well all the time:\n%s", n, &d.stderr)
	}
}

// TestBackendRemoved takes a backend out of the file while it has flows.
func TestBackendRemoved(t *testing.T) {
	b := newBed(t)
	var asked atomic.Int64
	b.serve(b.Server, lab.Server2IP4+":9001", func(c net.Conn) {
		asked.Add(1)
		echo(c)
	})
	stays := backendAt("stays", lab.ServerIP4+":80")
	service := vipService("two", "tcp", 82, healthBy("tcp", quick, "port = 80"), stays)
	both := configuration("", "") + service + backendAt("goes", lab.Server2IP4+":9001")
	d := b.start(both, options{})
	l := b.load()
	var held []*net.TCPConn
	netnstest.Eventually(t, patience, func() bool {
		held = append(held, b.open(lab.VIP4+":82"))
		return asked.Load() >= 3
	}, "the backend has flows")
	d.wantReload(configuration("", "")+service, true)
	had := asked.Load()
	for range 10 {
		if err := b.talk(lab.VIP4 + ":82"); err != nil {
			t.Error(err)
		}
	}
	l.more(t, 100)
	for _, c := range held {
		if err := ping(c); err != nil {
			t.Errorf("a flow from before the reload: %v", err)
		}
	}
	if now := asked.Load(); now != had {
		t.Errorf("%d new flows to a backend that is gone", now-had)
	}
	l.end(t)
	closeAll(t, held...)
	m := d.idle()
	if all, good := m.sum("tproxyd_connections_closed_total"), m.sum("tproxyd_connections_closed_total", "reason=client_close"); all != good {
		t.Errorf("%v flows have ended, %v of them well", all, good)
	}
	d.wantReload(both, true) // and back
	netnstest.Eventually(t, patience, func() bool { return b.talk(lab.VIP4+":82") == nil && asked.Load() > had }, "it gets flows again")
}
