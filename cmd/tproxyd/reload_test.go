package main

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/tproxyd/tproxyd/internal/lab"
	"github.com/tproxyd/tproxyd/internal/netnstest"
	"golang.org/x/sys/unix"
)

// load uses all targets until it is ended: on each there is one client that
// connects anew all the time and one that stays.
type load struct {
	stop    chan struct{}
	running sync.WaitGroup
	done    atomic.Int64
	held    []*net.TCPConn
	mu      sync.Mutex
	failed  []error
}

func (b *bed) load() *load {
	b.t.Helper()
	l := &load{stop: make(chan struct{})}
	for _, target := range targets {
		held := b.open(target)
		l.held = append(l.held, held)
		l.running.Go(func() { l.repeat(func() error { return b.talk(target) }) })
		l.running.Go(func() { l.repeat(func() error { return ping(held) }) })
	}
	return l
}

func (l *load) repeat(try func() error) {
	for {
		select {
		case <-l.stop:
			return
		default:
		}
		if err := try(); err != nil {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.failed = append(l.failed, err)
			return
		}
		l.done.Add(1)
	}
}

// more waits until n further requests are done.
func (l *load) more(t *testing.T, n int64) {
	t.Helper()
	want := l.done.Load() + n
	netnstest.Eventually(t, patience, func() bool { return l.done.Load() >= want || l.failures() > 0 }, "the load goes on")
}

func (l *load) failures() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.failed)
}

func (l *load) end(t *testing.T) {
	t.Helper()
	close(l.stop)
	l.running.Wait()
	closeAll(t, l.held...)
	if len(l.failed) > 0 {
		t.Errorf("%d clients failed: %v", len(l.failed), errors.Join(l.failed...))
	}
}

// TestReloadUnderLoad reads 20 files that differ in what they can, while no
// request of the services that stay may fail.
func TestReloadUnderLoad(t *testing.T) {
	b := newBed(t)
	d := b.start(configuration("", ""), options{})
	l := b.load()
	const extra = lab.VIP4 + ":81"
	for i := range 20 {
		// A connection that counts as one of a service that is gone would be cut.
		text := configuration(fmt.Sprintf("drain_timeout = \"10ms\"\nmax_connections = %d", 5000+i), []string{"access = \"haproxy\"", "access = \"off\"", ""}[i%3])
		if i%2 == 0 {
			text += strings.NewReplacer(`"web"`, `"extra"`, lab.VIP4+":80", extra, "["+lab.VIP6+"]:80", "["+lab.VIP6+"]:81").Replace(webService)
			text = strings.Replace(text, "source", "idle_timeout = \"5m\"\nsource", 1)
		} else {
			text = strings.Replace(text, lab.ServerIP4+":80", lab.Server2IP4+":80", 1)
		}
		m := d.wantReload(text, true)
		if got := m.sum("tproxyd_max_connections"); got != float64(5000+i) {
			t.Errorf("max_connections is %v after reload %d", got, i)
		}
		// What is new works at once, and what is gone is gone.
		if i%2 == 0 {
			if err := b.talk(extra); err != nil {
				t.Errorf("%s after reload %d: %v", extra, i, err)
			}
		} else if !b.unserved(extra) {
			t.Errorf("%s after reload %d: it is still served", extra, i)
		}
		l.more(t, 20)
	}
	l.end(t)
	m := d.idle()
	if m.sum("tproxyd_config_reload_failures_total") != 0 || m.sum("tproxyd_connections_rejected_total") != 0 {
		t.Error("a reload failed, or a connection was rejected")
	}
	opened, closed := m.sum("tproxyd_connections_total"), m.sum("tproxyd_connections_closed_total")
	if good := m.sum("tproxyd_connections_closed_total", "reason=client_close"); opened != closed || good != closed {
		t.Errorf("%v connections, %v ended, %v of them well", opened, closed, good)
	}
}

// TestReloadBackend sends the next connection to the new backend, and leaves
// the one that is open alone.
func TestReloadBackend(t *testing.T) {
	b := newBed(t)
	d := b.start(configuration("", ""), options{})
	held := b.open(targets["vip4"])
	d.wantReload(strings.Replace(configuration("", ""), `address = "`+lab.ServerIP4+`:80"
  name = "web4"`, `address = "`+lab.Server2IP4+`:80"
  name = "other4"`, 1), true)
	if err := b.talk(targets["vip4"]); err != nil {
		t.Error(err)
	}
	if err := ping(held); err != nil {
		t.Errorf("connection to the backend that is gone: %v", err)
	}
	closeAll(t, held)
	m := d.idle()
	for backend, want := range map[string]float64{"web4": 1, "other4": 1} {
		if got := m.sum("tproxyd_backend_connections_total", "backend="+backend, "result=ok"); got != want {
			t.Errorf("%v connections to %s, want %v", got, backend, want)
		}
	}
}

// TestReloadRefused has files with all sorts of mistakes, one of which only the
// kernel finds. The old configuration stays.
func TestReloadRefused(t *testing.T) {
	b := newBed(t)
	b.serve(b.Proxy, lab.ProxyClientIP4+":8081", func(net.Conn) {})
	d := b.start(configuration("", ""), options{})
	l := b.load()
	old := configuration("", "")
	for i, c := range []struct{ text, why string }{
		{old[:len(old)-9], "TOML syntax"},
		{"", "the file is empty"},
		{strings.Replace(old, "workers", "worker", 1), "unknown key"},
		{old + strings.Replace(service4, lab.VIP4+":80", lab.ProxyClientIP4+":8081", 1), "web"},
		{old + strings.NewReplacer(lab.VIP4+":80", lab.ProxyClientIP4+":8081", "web", "third").Replace(service4), "bind: address already in use: " + holding("tcp", lab.ProxyClientIP4+":8081")},
		{strings.Replace(old, adminAddress, lab.ProxyClientIP4+":8081", 1), holding("tcp", lab.ProxyClientIP4+":8081")},
	} {
		m := d.wantReload(c.text, false)
		if got := m.sum("tproxyd_config_reload_failures_total"); got != float64(i+1) {
			t.Errorf("%v failures counted, want %d", got, i+1)
		}
		d.logged(c.why)
		if page, err := d.get("/api/v1/status"); err != nil || !strings.Contains(page, `"last_reload_success": false`) {
			t.Errorf("status: %v\n%s", err, page)
		}
		if _, err := d.get("/readyz"); err != nil {
			t.Errorf("/readyz after a file that was refused: %v", err)
		}
		l.more(t, 20)
	}
	if n := strings.Count(d.stderr.String(), `"msg":"configuration refused, the old one stays"`); n != 6 {
		t.Errorf("%d lines of the log about 6 refused files:\n%s", n, &d.stderr)
	}
	m := d.wantReload(old, true)
	if got := m.sum("tproxyd_config_reload_failures_total"); got != 6 {
		t.Errorf("%v failures counted, want 6", got)
	}
	l.end(t)
}

// TestReloadAdmin moves the admin address.
func TestReloadAdmin(t *testing.T) {
	b := newBed(t)
	d := b.start(configuration("", ""), options{})
	held := b.open(targets["vip4"])
	at := func(address string) string { return strings.Replace(configuration("", ""), adminAddress, address, 1) }
	old := adminAddress
	for _, next := range []string{"127.0.0.1:9181", "[::1]:9181", lab.ProxyClientIP4 + ":9180"} {
		d.configure(at(next))
		d.signal(unix.SIGHUP)
		netnstest.Eventually(t, patience, func() bool {
			_, err := getFrom(next, "/readyz")
			return err == nil
		}, "the admin address is "+next)
		netnstest.Eventually(t, patience, func() bool {
			_, err := getFrom(old, "/readyz")
			return errors.Is(err, unix.ECONNREFUSED)
		}, "the old admin address is closed")
		old = next
	}
	if err := ping(held); err != nil {
		t.Error(err)
	}
}
