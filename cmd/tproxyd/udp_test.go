package main

import (
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/tproxyd/tproxyd/internal/admin"
	"github.com/tproxyd/tproxyd/internal/lab"
	"github.com/tproxyd/tproxyd/internal/netnstest"
	"github.com/tproxyd/tproxyd/internal/sockowner"
	"golang.org/x/sys/unix"
)

const (
	vip4, vip6 = lab.VIP4 + ":53", "[" + lab.VIP6 + "]:53" // of the service dns
	egressUDP  = `
[[service]]
name = "egress-udp"
protocol = "udp"
mode = "intercept"
listen = ["0.0.0.0:15001", "[::]:15001"]
`
)

// promisedUDP are metrics of UDP that dashboards and alerts rely on, with their
// labels.
var promisedUDP = map[string][]string{
	"tproxyd_udp_flows_active":          {"service"},
	"tproxyd_udp_flows_total":           {"service"},
	"tproxyd_udp_flows_closed_total":    {"reason", "service"},
	"tproxyd_udp_flows_evicted_total":   {"reason", "service"},
	"tproxyd_udp_flow_duration_seconds": {"service"},
	"tproxyd_datagrams_total":           {"direction", "service"},
	"tproxyd_udp_dropped_total":         {"reason", "service"},
	"tproxyd_udp_gso_datagrams_total":   {"direction", "service"},
	"tproxyd_udp_offload_supported":     {"offload"},
	"tproxyd_udp_gso_refused_total":     nil,
	"tproxyd_udp_max_flows":             nil,
}

// udpBed has the service dns in the server of the lab.
func udpBed(t *testing.T) *bed {
	t.Helper()
	b := newBed(t)
	for _, ip := range []string{lab.ServerIP4, lab.ServerIP6} {
		b.echoDatagrams(net.JoinHostPort(ip, "53"))
	}
	return b
}

// TestUDPMetrics compares the counters with what has been done, and has both
// protocols on one address.
func TestUDPMetrics(t *testing.T) {
	b := udpBed(t)
	text := configuration("max_flows = 100", "") + udpService("dns", 53, "responses = 1") + udpService("web-udp", 80) + egressUDP
	d := b.start(text, options{})
	for _, target := range []string{vip4, vip6} {
		b.converse(target).ask("first")
	}
	for _, target := range []string{net.JoinHostPort(lab.ForeignIP4, "5353"), net.JoinHostPort(lab.ForeignIP6, "5353")} {
		host, _, err := net.SplitHostPort(target)
		if err != nil {
			t.Fatal(err)
		}
		b.echoDatagrams(net.JoinHostPort(host, "5353"))
		c := b.converse(target)
		for i := range 3 {
			c.ask(fmt.Sprint(i))
		}
	}
	b.exchange(targets["vip4"], 100) // TCP on an address that UDP has too
	// A client may have its reply before it is counted.
	m := d.waitMetrics(func(m metrics) bool {
		return m.sum("tproxyd_udp_flows_closed_total", "reason=answered") == 2 && m.sum("tproxyd_datagrams_total", "direction=out") == 8
	}, "all replies are counted")
	for _, want := range []struct {
		value  float64
		name   string
		labels []string
	}{
		{2, "udp_flows_total", []string{"service=dns"}},
		{0, "udp_flows_active", []string{"service=dns"}},
		{2, "udp_flows_closed_total", []string{"service=dns", "reason=answered"}},
		{2, "udp_flows_total", []string{"service=egress-udp"}},
		{2, "udp_flows_active", []string{"service=egress-udp"}},
		{6, "datagrams_total", []string{"service=egress-udp", "direction=in"}},
		{6, "datagrams_total", []string{"service=egress-udp", "direction=out"}},
		{0, "udp_flows_total", []string{"service=web-udp"}},
		{0, "udp_dropped_total", nil},
		{0, "udp_flows_evicted_total", nil},
		{100, "udp_max_flows", nil},
		{2, "udp_offload_supported", nil},
		{1, "connections_total", nil},
	} {
		m.want(t, want.value, want.name, want.labels...)
	}
	d.wantWellFormed(m, promisedUDP)
	d.wantUDPStatus(2, 4, 100)
	if code := d.terminateNow(); code != exitOK {
		t.Errorf("exit code %d\n%s", code, &d.stderr)
	}
}

// wantUDPStatus compares the status with UDP flows there are, were and may be.
func (d *process) wantUDPStatus(active int, total uint64, most int) {
	d.t.Helper()
	text, err := d.get("/api/v1/status")
	if err != nil {
		d.t.Fatal(err)
	}
	var s admin.Status
	if err := json.Unmarshal([]byte(text), &s); err != nil {
		d.t.Fatal(err)
	}
	if s.Flows != (admin.Flows{Active: active, Total: total}) || s.Limits.MaxFlows != most {
		d.t.Errorf("want %d of %d flows, %d at most: %s", active, total, most, text)
	}
	page, err := d.get("/")
	if err != nil || !strings.Contains(page, fmt.Sprintf("<dt>UDP flows at most</dt><dd>%d</dd>", most)) {
		d.t.Errorf("the status page does not show the limit on UDP flows: %v", err)
	}
}

// TestUDPRecords has records of flows that end for different reasons.
func TestUDPRecords(t *testing.T) {
	b := udpBed(t)
	d := b.start(configuration("", "")+udpService("dns", 53, `idle_timeout = "3s"`)+
		udpService("once", 54, "responses = 2")+udpService("closed", 55), options{})
	b.echoDatagrams(net.JoinHostPort(lab.ServerIP6, "54"))
	c := b.converse(vip4)
	c.ask("one")
	c.ask("three")
	local := c.LocalAddr().String()
	d.udpRecords(1)[0].want(t, record{
		"service": "dns", "client": local, "destination": vip4, "backend": net.JoinHostPort(lab.ServerIP4, "53"), "backend_name": "dns4",
		"upstream_source": local, "source_policy": "client", "datagrams_in": 2.0, "datagrams_out": 2.0,
		"bytes_in": 8.0, "bytes_out": float64(8 + 2*len(local+" ")), "path_in": "datagram", "path_out": "datagram",
		"reason": "idle_timeout", "term": "cD",
	})
	// Nobody listens: the client hears of it.
	refused := b.converse(net.JoinHostPort(lab.VIP4, "55"))
	if _, err := refused.Write([]byte("?")); err != nil {
		t.Fatal(err)
	}
	d.udpRecords(2)[1].want(t, record{
		"service": "closed", "datagrams_in": 1.0, "datagrams_out": 0.0, "path_out": "none", "reason": "port_unreachable", "term": "SD",
	})
	held := b.converse(net.JoinHostPort(lab.VIP6, "54"))
	held.ask("x")
	if code := d.terminateNow(); code != exitOK {
		t.Errorf("exit code %d\n%s", code, &d.stderr)
	}
	d.udpRecords(3)[2].want(t, record{"service": "once", "backend_name": "once6", "datagrams_in": 1.0, "datagrams_out": 1.0, "reason": "drain", "term": "KD"})
}

// terminateNow ends the daemon by two signals.
func (d *process) terminateNow() int {
	d.t.Helper()
	d.signal(unix.SIGTERM)
	d.logged("draining")
	d.signal(unix.SIGTERM)
	return d.exit()
}

// TestUDPReload adds a UDP service, changes it, and removes it, while a flow
// that began at first goes on with its backend and its address.
func TestUDPReload(t *testing.T) {
	b := udpBed(t)
	b.echoDatagrams(net.JoinHostPort(lab.ServerIP4, "54"))
	b.echoDatagrams(net.JoinHostPort(lab.Server2IP4, "53"))
	base := configuration(`drain_timeout = "1h"`, "") + udpService("dns", 53)
	d := b.start(base, options{})
	held, six := b.converse(vip4), b.converse(vip6)
	both := func() {
		t.Helper()
		held.ask("still there?")
		six.ask("still there?")
	}
	both()
	second := net.JoinHostPort(lab.VIP4, "54")
	for range 2 {
		d.wantReload(base+udpService("second", 54), true)
		both()
		added := b.converse(second)
		added.ask("added")
		m := d.wantReload(base+udpService("second", 54, "responses = 1"), true)
		before := m.sum("tproxyd_udp_flows_closed_total", "service=second", "reason=answered")
		both()
		b.converse(second).ask("changed")
		d.waitMetrics(func(m metrics) bool {
			return m.sum("tproxyd_udp_flows_closed_total", "service=second", "reason=answered") == before+1
		}, "a flow of the changed service ends with its reply")
		d.wantReload(base, true)
		both()
		// It takes no new flow, and is gone when its last one has ended.
		dropped := m.sum("tproxyd_udp_dropped_total", "service=second", "reason=draining")
		if _, err := b.converse(second).Write([]byte("too late")); err != nil {
			t.Fatal(err)
		}
		d.waitMetrics(func(m metrics) bool {
			return m.sum("tproxyd_udp_dropped_total", "service=second", "reason=draining") == dropped+1
		}, "a new client is not served")
		added.ask("until the end")
		wantNobody(t, second)
	}
	// A backend that is gone gets no new flows, and keeps the one it has.
	d.wantReload(strings.NewReplacer(lab.ServerIP4+":53", lab.Server2IP4+":53", `"dns4"`, `"other4"`).Replace(base), true)
	both()
	b.converse(vip4).ask("to the second server")
	m := d.waitMetrics(func(m metrics) bool {
		return m.sum("tproxyd_backend_connections_total", "backend=other4", "result=ok") == 1
	}, "the new backend has a flow")
	if got := m.sum("tproxyd_udp_flows_closed_total", "service=dns"); got != 0 {
		t.Errorf("%v flows of the service that stayed have ended", got)
	}
	if got := m.sum("tproxyd_datagrams_total", "service=dns", "direction=in"); got != 17 {
		t.Errorf("%v datagrams, want 17", got)
	}
	if got := m.sum("tproxyd_udp_dropped_total", "service=dns"); got != 0 {
		t.Errorf("%v datagrams were dropped", got)
	}
	for backend, want := range map[string]float64{"dns4": 1, "dns6": 1} {
		if got := m.sum("tproxyd_backend_connections_total", "backend="+backend, "result=ok"); got != want {
			t.Errorf("%v flows to %s, want %v", got, backend, want)
		}
	}
	// Without any UDP service the flows there are still go on, until the end.
	d.wantReload(configuration(`drain_timeout = "1h"`, ""), true)
	both()
	if code := d.terminateNow(); code != exitOK {
		t.Errorf("exit code %d\n%s", code, &d.stderr)
	}
}

// wantNobody waits until nothing of the proxy has an address any more.
func wantNobody(t *testing.T, address string) {
	t.Helper()
	netnstest.Eventually(t, patience, func() bool {
		owners, err := sockowner.Find("udp", netip.MustParseAddrPort(address))
		if err != nil {
			t.Fatal(err)
		}
		return len(owners) == 0
	}, "nobody has "+address)
}

// TestUDPDrain lets flows that are used go on after SIGTERM, and ends when the
// last one has become idle.
func TestUDPDrain(t *testing.T) {
	b := udpBed(t)
	d := b.start(configuration(`drain_timeout = "1h"`, "")+udpService("dns", 53, `idle_timeout = "5s"`), options{})
	four, six := b.converse(vip4), b.converse(vip6)
	four.ask("1")
	six.ask("1")
	d.signal(unix.SIGTERM)
	d.logged(`"flows":2`)
	four.ask("2")
	six.ask("2")
	if _, err := d.get("/readyz"); err == nil {
		t.Error("/readyz while draining says that it is ready")
	}
	if code := d.exit(); code != exitOK {
		t.Errorf("exit code %d\n%s", code, &d.stderr)
	}
	for _, r := range d.udpRecords(2) {
		r.want(t, record{"reason": "idle_timeout", "datagrams_in": 2.0, "datagrams_out": 2.0})
	}
}

// TestUDPDrainTimeout cuts the flows that are left when the time is over.
func TestUDPDrainTimeout(t *testing.T) {
	b := udpBed(t)
	d := b.start(configuration(`drain_timeout = "700ms"`, "")+udpService("dns", 53)+egressUDP, options{})
	b.converse(vip6).ask("1")
	b.echoDatagrams(net.JoinHostPort(lab.ForeignIP4, "5353"))
	b.converse(net.JoinHostPort(lab.ForeignIP4, "5353")).ask("1")
	if code := d.terminate(); code != exitOK {
		t.Errorf("exit code %d\n%s", code, &d.stderr)
	}
	for _, r := range d.udpRecords(2) {
		r.want(t, record{"reason": "drain", "term": "KD", "datagrams_in": 1.0, "datagrams_out": 1.0})
	}
}
