package main

import (
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/tproxyd/tproxyd/internal/lab"
	"github.com/tproxyd/tproxyd/internal/netnstest"
)

// quick has checks that come fast and have time: nothing depends on the speed
// of the machine but how long a test takes.
const quick = `interval = "30ms"
jitter = 50
timeout = "10s"
`

// vipService is a service at a port of the virtual address.
func vipService(name, protocol string, port int, settings ...string) string {
	return fmt.Sprintf(`
[[service]]
name = %q
protocol = %q
mode = "vip"
source = "client-ip"
listen = ["%s:%d"]
`, name, protocol, lab.VIP4, port) + strings.Join(settings, "\n") + "\n"
}

// backendAt is a backend of the service before it.
func backendAt(name, address string, settings ...string) string {
	return fmt.Sprintf("  [[service.backend]]\n  name = %q\n  address = %q\n  %s\n", name, address, strings.Join(settings, "\n  "))
}

// healthBy is the checks of the service before it.
func healthBy(typ string, settings ...string) string {
	return fmt.Sprintf("  [service.health]\ntype = %q\n", typ) + strings.Join(settings, "\n") + "\n"
}

// head is a configuration without services.
func head(admin string) string { return fmt.Sprintf(configHead, "", "") + admin + "\n" }

// gate is a port of the server that is open or not.
type gate struct {
	b       *bed
	address string
	ln      net.Listener
	running sync.WaitGroup
}

// gate returns one that is open.
func (b *bed) gate(address string) *gate {
	b.t.Helper()
	g := &gate{b: b, address: address}
	g.open()
	b.t.Cleanup(g.close)
	return g
}

func (g *gate) open() {
	g.b.t.Helper()
	ln, err := g.b.Server.Listen("tcp", g.address)
	if err != nil {
		g.b.t.Fatal(err)
	}
	g.ln = ln
	g.running.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			g.running.Go(func() {
				defer c.Close()
				echo(c)
			})
		}
	})
}

// close refuses connections from now on; those that there are go on.
func (g *gate) close() { g.ln.Close() }

// stateOf is the state of a backend, by the metrics.
func (m metrics) stateOf(service, backend string) string {
	for _, state := range []string{"up", "starting", "down", "ejected", "drain", "maintenance"} {
		if m.sum("tproxyd_backend_state", "service="+service, "backend="+backend, "state="+state) == 1 {
			return state
		}
	}
	return ""
}

// until waits for a backend's state.
func (d *process) until(service, backend, state string) metrics {
	d.t.Helper()
	last := ""
	m, ok := metrics(nil), false
	defer func() {
		if !ok {
			d.t.Logf("%s of %s is %s:\n%s", backend, service, last, &d.stderr)
		}
	}()
	m = d.waitMetrics(func(m metrics) bool {
		last = m.stateOf(service, backend)
		return last == state
	}, backend+" of "+service+" is "+state)
	ok = true
	return m
}

// checked waits for n more checks of a service with a result.
func (d *process) checked(service, result string, n float64) {
	d.t.Helper()
	count := func(m metrics) float64 {
		return m.sum("tproxyd_healthcheck_total", "service="+service, "result="+result)
	}
	want := count(d.metrics()) + n
	d.waitMetrics(func(m metrics) bool { return count(m) >= want }, service+" is checked, with the result "+result)
}

// changes are the lines of the log about a change of a backend's state.
func (d *process) changes() (n int) { return strings.Count(d.stderr.String(), "backend is now") }

// command runs a command that talks to the daemon, and compares its exit code.
func (d *process) command(code int, args ...string) string {
	d.t.Helper()
	got, stdout, stderr := cli(d.t, append(args, "--config", d.config, "--timeout", patience.String())...)
	if got != code {
		d.t.Errorf("tproxyd %q: exit code %d, want %d\n%s%s", args, got, code, stdout, stderr)
	}
	return stdout + stderr
}

func wantText(t *testing.T, text string, all ...string) {
	t.Helper()
	for _, want := range all {
		if !strings.Contains(text, want) {
			t.Errorf("there is no %q in:\n%s", want, text)
		}
	}
}

// retalk connects until it works.
func (b *bed) retalk(target string) {
	b.t.Helper()
	netnstest.Eventually(b.t, patience, func() bool { return b.talk(target) == nil }, target+" serves")
}
