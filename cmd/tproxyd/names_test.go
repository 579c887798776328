package main

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/tproxyd/tproxyd/internal/lab"
	"github.com/tproxyd/tproxyd/internal/netnstest"
	"golang.org/x/net/dns/dnsmessage"
)

const nameServer = "127.0.0.1:53"

// zone is what a name server answers with.
type zone struct {
	mu      sync.Mutex
	records map[string][]dnsmessage.ResourceBody // by type and name
}

func (z *zone) set(question string, all ...dnsmessage.ResourceBody) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.records[question] = all
}

func address4(s string) dnsmessage.ResourceBody {
	return &dnsmessage.AResource{A: netip.MustParseAddr(s).As4()}
}

// answer gives every record a TTL of 0: it is asked for as often as may be.
func (z *zone) answer(q dnsmessage.Question) (dnsmessage.RCode, []dnsmessage.Resource) {
	z.mu.Lock()
	defer z.mu.Unlock()
	var all []dnsmessage.Resource
	for _, body := range z.records[strings.TrimPrefix(q.Type.String(), "Type")+" "+q.Name.String()] {
		all = append(all, dnsmessage.Resource{Header: dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class}, Body: body})
	}
	return dnsmessage.RCodeSuccess, all
}

// resolverTable asks nameServer as fast as may be.
const resolverTable = `[resolver]
servers = ["` + nameServer + `"]
timeout = %q
min_interval = "100ms"
max_interval = "1s"
`

// backendsOf are the names of a service's backends.
func (m metrics) backendsOf(service string) (names []string) {
	for _, s := range m["tproxyd_backend_up"].GetMetric() {
		all := labelsOf(s)
		if slices.Contains(all, "service="+service) {
			names = append(names, strings.TrimPrefix(all[0], "backend="))
		}
	}
	slices.Sort(names)
	return names
}

func (d *process) waitBackends(service string, want ...string) {
	d.t.Helper()
	d.waitMetrics(func(m metrics) bool { return slices.Equal(m.backendsOf(service), want) },
		fmt.Sprintf("the backends of %s are %v", service, want))
}

// TestNames has backends by name, whose addresses change, and whose name server
// dies and comes back.
func TestNames(t *testing.T) {
	b := newBed(t)
	z := &zone{records: map[string][]dnsmessage.ResourceBody{}}
	z.set("A web.example.", address4(lab.ServerIP4))
	z.set("SRV _web._tcp.example.", &dnsmessage.SRVResource{Target: dnsmessage.MustNewName("web.example."), Port: 9001, Weight: 7})
	dns := serveDNS(t, b.Proxy, nameServer, z.answer)
	b.serve(b.Server, ":9001", echo)
	service := func(interval string) string {
		return vipService("host", "tcp", 81, "resolve_interval = \""+interval+"\"", healthBy("tcp", quick), backendAt("web", "web.example:80")) +
			vipService("srv", "tcp", 82, "  [[service.backend]]\n  srv = \"_web._tcp.example\"\n  name = \"srv\"")
	}
	text := func(timeout, interval, level string) string {
		return fmt.Sprintf(configHead, "", "level = \""+level+"\"") + fmt.Sprintf(resolverTable, timeout) + service(interval)
	}
	const first, second = "web/" + lab.ServerIP4 + ":80", "web/" + lab.Server2IP4 + ":80"
	d := b.start(text("5s", "0s", "info"), options{})
	// It was not ready before it knew.
	if got := d.metrics().backendsOf("host"); !slices.Equal(got, []string{first}) {
		t.Errorf("backends at the start: %v:\n%s", got, &d.stderr)
	}
	for _, port := range []string{":81", ":82"} {
		if err := b.talk(lab.VIP4 + port); err != nil {
			t.Error(err)
		}
	}
	d.metrics().want(t, 7, "backend_weight", "service=srv", "backend=srv/"+lab.ServerIP4+":9001")
	held := b.open(lab.VIP4 + ":81")
	d.command(exitOK, "backend", "set", "--service", "host", "--backend", first, "--weight", "9")

	z.set("A web.example.", address4(lab.Server2IP4), address4(lab.ServerIP4))
	d.waitBackends("host", first, second)
	d.waitBackends("srv", "srv/"+lab.ServerIP4+":9001", "srv/"+lab.Server2IP4+":9001")
	m := d.metrics()
	m.want(t, 9, "backend_weight", "service=host", "backend="+first)
	d.waitMetrics(func(m metrics) bool { return m.sum("tproxyd_backend_up", "service=host") == 2 }, "both are up")
	z.set("A web.example.", address4(lab.Server2IP4))
	d.waitBackends("host", second)
	if err := ping(held); err != nil {
		t.Errorf("a flow to an address that is gone: %v", err)
	}
	if err := b.talk(lab.VIP4 + ":81"); err != nil {
		t.Error(err)
	}

	// Without a name server all stays as it is, whatever is reloaded.
	_ = dns.Close()
	d.logged("its last good endpoints stay")
	for _, next := range []string{text("5s", "0s", "warn"), text("5s", "1h", "info"), text("1s", "0s", "info"), text("1s", "2h", "info")} {
		m := d.wantReload(next, true)
		if got := m.backendsOf("host"); !slices.Equal(got, []string{second}) {
			t.Errorf("backends after a reload without a name server: %v", got)
		}
		if err := b.talk(lab.VIP4 + ":81"); err != nil {
			t.Error(err)
		}
	}
	d.command(exitOK, "status", "--check")
	d.wantReload(text("1s", "0s", "info"), true)
	z.set("A web.example.", address4(lab.ServerIP4))
	serveDNS(t, b.Proxy, nameServer, z.answer)
	d.waitBackends("host", first)
	b.retalk(lab.VIP4 + ":81")
	closeAll(t, held)
}

// TestNamesUnknown starts without a name server: the service that needs it is
// down, and no other.
func TestNamesUnknown(t *testing.T) {
	b := newBed(t)
	d := b.start(head("")+fmt.Sprintf(resolverTable, "200ms")+
		vipService("known", "tcp", 81, backendAt("one", lab.ServerIP4+":80"))+
		vipService("unknown", "tcp", 82, backendAt("web", "web.example:80")), options{})
	if err := b.talk(lab.VIP4 + ":81"); err != nil {
		t.Error(err)
	}
	wantText(t, d.command(exitFailed, "status", "--check"), "unknown: no backend for new flows, its names have no addresses yet")
	d.command(exitOK, "status", "--check", "--service", "known")
	if err := b.talk(lab.VIP4 + ":82"); err == nil {
		t.Error("a service without addresses serves")
	}
	z := &zone{records: map[string][]dnsmessage.ResourceBody{"A web.example.": {address4(lab.ServerIP4)}}}
	serveDNS(t, b.Proxy, nameServer, z.answer)
	d.waitBackends("unknown", "web/"+lab.ServerIP4+":80")
	b.retalk(lab.VIP4 + ":82")
	netnstest.Eventually(t, patience, func() bool {
		code, _, _ := cli(t, "status", "--check", "--config", d.config)
		return code == exitOK
	}, "all is well")
}
