package proxy

import (
	"crypto/tls"
	"fmt"
	"net"
	"net/netip"
	"reflect"
	"testing"
	"time"

	"github.com/tproxyd/tproxyd/internal/admission"
	"github.com/tproxyd/tproxyd/internal/balance"
	"github.com/tproxyd/tproxyd/internal/health"
	"github.com/tproxyd/tproxyd/internal/lab"
)

// TestFlowSize holds what docs/ARCHITECTURE.md says.
func TestFlowSize(t *testing.T) {
	if n := reflect.TypeFor[flow]().Size(); n != 416 {
		t.Errorf("a flow has %d bytes, want 416", n)
	}
}

// seenLeg is what a server sees of a connection.
type seenLeg struct{ remote, local netip.AddrPort }

// TestTapSources has flows of every source policy told, in both modes and
// families. Nobody but the tap asks for their sources and qualities.
func TestTapSources(t *testing.T) {
	for _, policy := range []Source{Client, PreferClient, ClientIP, Host} {
		t.Run(policy.String(), func(t *testing.T) {
			web, foreign := vip("web", 80), intercept()
			web.Source, foreign.Source = policy, policy
			b, k := tapped(t, web, foreign)
			seen := make(chan seenLeg, 1)
			b.server(80, func(c *net.TCPConn) {
				seen <- seenLeg{unmapped(c.RemoteAddr()), unmapped(c.LocalAddr())}
				echo(c)
			})
			for service, to := range map[string][]string{"web": {lab.VIP4, lab.VIP6}, "any": {lab.ForeignIP4, lab.ForeignIP6}} {
				for _, ip := range to {
					testTapSource(t, b, k, service, addrPort(ip, 80), policy, seen)
				}
			}
			k.wantBalance(t, false)
		})
	}
}

func testTapSource(t *testing.T, b *bed, k *tapKeeper, service string, to netip.AddrPort, policy Source, seen <-chan seenLeg) {
	t.Helper()
	c := b.dial(to)
	mustPing(t, c)
	c.Close()
	server, from := <-seen, unmapped(c.LocalAddr())
	name, algorithm, why := "original", "", "original destination"
	if service == "web" {
		name, algorithm, why = "a4", "round-robin", "first choice"
		if server.local.Addr().Is6() {
			name = "a6"
		}
	}
	want, bound := []string{"Opened", "Dialing " + name}, server.remote
	switch policy {
	case Client, PreferClient:
	case ClientIP:
		want, bound = append(want, "Dialed"), netip.AddrPortFrom(from.Addr(), 0)
	case Host:
		want, bound = append(want, "Dialed"), netip.AddrPort{}
	}
	calls := k.of(t, from, append(want, "Ended client_close")...)
	for i, got := range calls {
		if got.Service != service || got.Protocol != TCP || got.Destination != to || got.SourcePolicy != policy.String() || got.ID != calls[0].ID || got.Accepted.IsZero() {
			t.Errorf("%s of %+v", got.method, got.TapFlow)
		}
		switch {
		case i == 0:
			if got.Peer != from || got.Local != to || got.Backend.IsValid() {
				t.Errorf("opened as %+v", got.TapFlow)
			}
			continue
		case got.Backend != server.local || got.Algorithm != algorithm || got.Why != why:
			t.Errorf("%s of %+v, want backend %v", got.method, got.TapFlow, server.local)
		}
		source := server.remote
		if i == 1 {
			source = bound
		}
		if got.UpstreamSource != source {
			t.Errorf("%s has source %v, want %v", got.method, got.UpstreamSource, source)
		}
	}
	end := calls[len(calls)-1]
	if end.BytesIn != 4 || end.BytesOut != 4 || end.ClientRTT <= 0 || end.UpstreamRTT <= 0 || end.ClientRetrans < 0 || end.UpstreamRetrans < 0 {
		t.Errorf("ended as %+v", end.TapFlow)
	}
}

// triedInTurn is a service that tries the server's ports in turn.
func triedInTurn(ports ...int) Service {
	s := vip("web", 80)
	s.Balance, s.Retries = balance.First, len(ports)-1
	s.Backends = append(pool(lab.VIP4, ports...), pool(lab.VIP6, ports...)...)
	for i := range ports {
		s.Backends[len(ports)+i].Name += "-v6"
	}
	return s
}

// TestTapRetries tells each try and its failure.
func TestTapRetries(t *testing.T) {
	b, k := tapped(t, triedInTurn(81, 82))
	b.server(82, echo)
	c := b.dial(addrPort(lab.VIP4, 80))
	mustPing(t, c)
	c.Close()
	from := unmapped(c.LocalAddr())
	calls := k.of(t, from, "Opened", "Dialing b81", "Failed connect_refused", "Dialing b82", "Ended client_close")
	if f := calls[2]; f.BackendName != "b81" || f.UpstreamSource != from || f.Retries != 0 || f.Why != "first choice" {
		t.Errorf("failed as %+v", f.TapFlow)
	}
	if f := calls[3]; f.Retries != 1 || f.Why != "the backend before it failed" || f.Algorithm != "first" {
		t.Errorf("dialled again as %+v", f.TapFlow)
	}
	e := k.told(t, 1)[0]
	if e.Kind != TapConnectFailed || e.Flow != calls[0].ID || e.Backend != "b81" || e.Client != from || e.Reason != ConnectRefused || e.Text != "connect_refused" || e.Time.IsZero() {
		t.Errorf("event %+v", e)
	}
	// Without another backend, the flow ends.
	b.apply(Config{Services: []Service{triedInTurn(81)}})
	b.wantRefused(addrPort(lab.VIP6, 80))
	k.told(t, 2)
	eventually(t, func() bool { return b.proxy.Active() == 0 }, "the flow ends")
	k.wantBalance(t, false)
}

// TestTapBoundFailure tells of tries that do not get as far as to a socket that
// is bound, and of the source that prefer-client falls back to.
func TestTapBoundFailure(t *testing.T) {
	s := triedInTurn(81)
	s.Source, s.Listen = PreferClient, append(s.Listen, addrPort(lab.VIP4, 83))
	b, k := tapped(t, s)
	b.server(81, echo)
	// The same client port, by two VIPs to the same backend.
	var conns []net.Conn
	for _, port := range []int{80, 83} {
		c, err := b.dialReusing(addrPort(lab.ClientIP4, 33333), addrPort(lab.VIP4, port))
		if err != nil {
			t.Fatal(err)
		}
		mustPing(t, c)
		conns = append(conns, c)
	}
	for _, c := range conns {
		c.Close()
	}
	eventually(t, func() bool { return b.proxy.Active() == 0 }, "both flows end")
	k.wantBalance(t, false)
	var second []tapCall
	for _, calls := range k.calls {
		if calls[0].Destination.Port() == 83 {
			second = calls
		}
	}
	failed := 0
	for i, call := range second {
		if call.method == "Failed source_conflict" {
			failed++
			if next := second[i+1]; next.SourcePolicy != "client-ip" || next.UpstreamSource.Port() != 0 {
				t.Errorf("then %s of %+v", next.method, next.TapFlow)
			}
		}
	}
	if failed != 1 {
		t.Errorf("%d conflicts told, want 1, in %v", failed, second)
	}
}

// TestTapBeforeSYN holds a worker in Dialing: no SYN has left yet.
func TestTapBeforeSYN(t *testing.T) {
	for _, policy := range []Source{Client, ClientIP, Host} {
		t.Run(policy.String(), func(t *testing.T) {
			s := triedInTurn(81)
			s.Source = policy
			b := newBedConfig(t, Config{Services: []Service{s}})
			k, entered, goOn := held(t)
			b.proxy.SetTap(k)
			b.server(81, echo)
			b.server(82, echo)
			wire := b.watchWire(t, lab.ServerLink)
			c := b.dial(addrPort(lab.VIP4, 80))
			<-entered
			// What the wire shows of this connection would be behind the SYN.
			marker, err := b.Proxy.Dial(t.Context(), "tcp", addrPort(lab.ServerIP4, 82).String())
			if err != nil {
				t.Fatal(err)
			}
			defer marker.Close()
			syns := func(port uint16) int {
				wire.mu.Lock()
				defer wire.mu.Unlock()
				n := 0
				for _, s := range wire.seen {
					if s.dst.Port() == port && s.flags&flagSYN != 0 {
						n++
					}
				}
				return n
			}
			eventually(t, func() bool { return syns(82) > 0 }, "the wire shows the marker")
			early := syns(81)
			goOn()
			if early != 0 {
				t.Errorf("%d SYNs left before Dialing has returned", early)
			}
			mustPing(t, c)
			eventually(t, func() bool { return syns(81) > 0 }, "the wire shows the SYN")
		})
	}
}

// TestTapCut tells the end of flows that are cut, whatever they are at.
func TestTapCut(t *testing.T) {
	hole, slow := vip("hole", 90), vip("slow", 70)
	hole.ConnectTimeout = time.Hour
	slow.AcceptProxy, slow.ProxyTimeout = ProxyRequire, time.Hour
	s := limited(1, 10)
	b, k := tapped(t, s, hole, slow)
	b.swallow("90")
	b.names(81)
	_, relayed := b.whose(addrPort(lab.VIP4, 80))
	waits := b.dial(addrPort(lab.VIP4, 80))
	connects := b.dial(addrPort(lab.VIP4, 90))
	b.dial(addrPort(lab.VIP4, 70)) // its client stays unknown: it is never opened
	from := func(c net.Conn) netip.AddrPort { return unmapped(c.LocalAddr()) }
	opened := k.of(t, from(connects), "Opened", "Dialing a4")
	k.of(t, from(waits), "Opened")
	if !b.proxy.CutFlow(opened[0].ID) {
		t.Error("the flow is not there")
	}
	k.of(t, from(connects), "Opened", "Dialing a4", "Ended killed")
	relayed.Close()
	k.of(t, from(relayed), "Opened", "Dialing b81", "Ended client_close")
	if calls := k.of(t, from(waits), "Opened", "Dialing b81"); calls[1].Why != "room became free" {
		t.Errorf("dialled as %+v", calls[1].TapFlow)
	}
	if err := b.proxy.Close(); err != nil {
		t.Error(err)
	}
	k.of(t, from(waits), "Opened", "Dialing b81", "Ended drain")
	if n := len(k.calls); n != 3 {
		t.Errorf("%d flows told, want 3", n)
	}
	k.wantBalance(t, false)
}

// TestTapRefusals tells of clients that get no flow, and whom a PROXY header
// names.
func TestTapRefusals(t *testing.T) {
	denied, named := vip("denied", 80), headered("named", 81)
	denied.Admission = &admission.Config{Deny: []netip.Prefix{netip.MustParsePrefix(lab.ClientIP4 + "/32")}}
	named.Backends = bothPools(82)
	b, k := tapped(t, denied, named)
	b.server(82, echo)
	b.wantRefused(addrPort(lab.VIP4, 80))
	e := k.told(t, 1)[0]
	if e.Kind != TapRefused || e.Service != "denied" || e.Reason != Denied || e.Text != "denied" || e.Client.Addr().String() != lab.ClientIP4 {
		t.Errorf("event %+v", e)
	}
	c := b.dial(addrPort(lab.VIP4, 81))
	from, to := addrPort("198.18.16.9", 1234), addrPort("203.0.113.7", 443)
	_ = together(c, proxyHeader(2, from, to))
	mustPing(t, c)
	c.Close()
	calls := k.of(t, from, "Opened", "Dialing b82", "Ended client_close")
	if f := calls[0]; f.Destination != to || f.Peer != unmapped(c.LocalAddr()) || f.Local != addrPort(lab.VIP4, 81) {
		t.Errorf("opened as %+v", f.TapFlow)
	}
	c = b.dial(addrPort(lab.VIP4, 81))
	_ = together(c, []byte("GET / HTTP/1.1\r\n\r\n"))
	wantRST(t, c)
	e = k.told(t, 2)[1]
	if e.Kind != TapRefused || e.Reason != ProxyHeaderRefused || e.Client != unmapped(c.LocalAddr()) {
		t.Errorf("event %+v", e)
	}
	if len(k.calls) != 1 {
		t.Errorf("%d flows told, want 1", len(k.calls))
	}
}

// TestTapRefusalRate bounds what clients can have the tap told.
func TestTapRefusalRate(t *testing.T) {
	b, k := tapped(t, vip("web", 80))
	w := b.proxy.workers[0]
	on := func(do func()) {
		b.proxy.each(func(each *worker) {
			if each == w {
				do()
			}
		})
	}
	client := newEndpoint(addrPort("198.18.16.9", 1))
	tell := func() {
		w.tellRefused(w.listeners[0].part, client, Denied)
		w.tellRefused(w.listeners[0].part, client, Drained) // nobody refused it
	}
	on(func() {
		w.refusalsFrom, w.refusalsLeft = w.loop.Now()+int64(time.Hour), 1
		for range 4 {
			tell()
		}
		w.refusalsFrom = 0
		tell()
	})
	got := k.told(t, 2)
	if len(got) != 2 || got[0].Missed != 0 || got[1].Missed != 3 {
		t.Errorf("events %+v", got)
	}
}

// TestTapRoute names the route of a flow.
func TestTapRoute(t *testing.T) {
	b, k := tapped(t, routedService("web", 80))
	b.tlsNames(91)
	c := b.dial(addrPort(lab.VIP4, 80))
	s := tls.Client(c, &tls.Config{ServerName: "api.example.org", InsecureSkipVerify: true})
	if err := s.Handshake(); err != nil {
		t.Fatal(err)
	}
	if f := k.of(t, unmapped(c.LocalAddr()), "Opened", "Dialing b91")[1]; f.Route != "api" {
		t.Errorf("dialled as %+v", f.TapFlow)
	}
}

// TestTapHealth tells of an ejection and of other changes.
func TestTapHealth(t *testing.T) {
	s := triedInTurn(81, 82)
	s.Health = health.Policy{Failures: 1, EjectBase: time.Hour, EjectMax: time.Hour, MaxEjectedPercent: 50}
	b, k := tapped(t, s)
	b.names(82)
	_, c := b.whose(addrPort(lab.VIP4, 80))
	c.Close()
	b.until("web", "b81", "ejected")
	drain := health.Drain
	if err := b.proxy.SetBackend("web", "b82", BackendChange{Admin: &drain}); err != nil {
		t.Fatal(err)
	}
	want := map[TapEventKind]string{
		TapConnectFailed: "b81: connect_refused",
		TapEjected:       "b81: ejected, was up, by failures: 1 flows in a row failed, the last by connect",
		TapHealth:        "b82: drain, was up, by admin: set by the API",
	}
	for _, e := range k.told(t, 3) {
		if got := e.Backend + ": " + e.Text; e.Service != "web" || e.Time.IsZero() || want[e.Kind] != got {
			t.Errorf("%v: %+v, want %s", e.Kind, e, want[e.Kind])
		}
		delete(want, e.Kind)
	}
	if len(want) > 0 {
		t.Errorf("not told: %v", fmt.Sprint(want))
	}
}

// BenchmarkTap is what a flow costs its worker more with a tap, and what it
// costs if there is none.
func BenchmarkTap(b *testing.B) {
	for _, tap := range []Tap{nil, silentTap{}} {
		b.Run(fmt.Sprintf("%T", tap), func(b *testing.B) {
			p, err := New(Options{Workers: 1, Tap: tap})
			if err != nil {
				b.Fatal(err)
			}
			defer func() {
				if err := p.Close(); err != nil {
					b.Error(err)
				}
			}()
			svc := vip("web", 80)
			pt := &part{svc: &service{Service: svc}, backends: []*backendStats{{name: "a4"}}}
			b.ReportAllocs()
			p.each(func(w *worker) {
				f := w.flows.take()
				defer w.flows.give(f)
				f.client, f.dest = newEndpoint(addrPort(lab.ClientIP4, 1)), newEndpoint(addrPort(lab.VIP4, 80))
				f.part, f.backend, f.admitted = pt, pt.backends[0], true
				for b.Loop() {
					w.tapOpened(f)
					w.tapDialing(f)
					w.tapDialed(f)
					w.tapEnded(f, ClientClose)
				}
			})
		})
	}
}

type silentTap struct{}

func (silentTap) Opened(*TapFlow)  {}
func (silentTap) Dialing(*TapFlow) {}
func (silentTap) Dialed(*TapFlow)  {}
func (silentTap) Failed(*TapFlow)  {}
func (silentTap) Ended(*TapFlow)   {}
func (silentTap) Event(*TapEvent)  {}
