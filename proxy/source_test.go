package proxy

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"testing"

	"github.com/tproxyd/tproxyd/internal/lab"
)

func TestSourcePolicies(t *testing.T) {
	for _, policy := range []Source{Client, ClientIP, PreferClient, Host} {
		t.Run(policy.String(), func(t *testing.T) {
			m := meet(t, func(s *Service) { s.Source = policy })
			m.each(func(t *testing.T, m *meeting, w way) {
				further := netip.MustParseAddr("198.18.16.77")
				if w.client.Is6() {
					further = netip.MustParseAddr("2001:db8:16::77")
				}
				for _, from := range []netip.Addr{w.client, further} {
					testSource(t, m, w, policy, netip.AddrPortFrom(from, 33333))
				}
			})
		})
	}
}

func testSource(t *testing.T, m *meeting, w way, policy Source, from netip.AddrPort) {
	t.Helper()
	before := m.recorded()
	cl, err := m.dialReusing(from, w.address)
	if err != nil {
		t.Fatal(err)
	}
	srv := m.accept()
	sees := unmapped(srv.RemoteAddr())
	want := from
	switch policy {
	case Client, PreferClient:
	case ClientIP:
		want = netip.AddrPortFrom(from.Addr(), sees.Port())
	case Host:
		want = netip.AddrPortFrom(w.proxyIP, sees.Port())
		if w.service == "web" && srv.LocalAddr().String() != w.backend.String() {
			// A client of one family may have a backend of the other.
			w.backend, want = crossed(w.backend), netip.AddrPortFrom(crossed(want).Addr(), sees.Port())
		}
	}
	if sees != want {
		t.Errorf("backend sees %v, want %v", sees, want)
	}
	if at := unmapped(srv.LocalAddr()); at != w.backend {
		t.Errorf("backend is reached at %v, want %v", at, w.backend)
	}
	if peer := unmapped(cl.RemoteAddr()); peer != w.address {
		t.Errorf("client's peer is %v, want %v", peer, w.address)
	}
	exchange(t, cl, srv)
	cl.Close()
	if _, err := io.ReadAll(srv); err != nil {
		t.Errorf("backend: %v", err)
	}
	srv.Close()
	r := m.nextRecord(t, before)
	wantReason(t, r, ClientClose)
	if r.Service != w.service || r.Client != from || r.Destination != w.address || r.Backend != w.backend ||
		r.UpstreamSource != sees || r.SourcePolicy != policy.String() {
		t.Errorf("record %+v, want client %v, destination %v, backend %v, source %v", r, from, w.address, w.backend, sees)
	}
	if r.BytesIn != 4 || r.BytesOut != 4 {
		t.Errorf("record has %d bytes in and %d out, want 4 and 4", r.BytesIn, r.BytesOut)
	}
}

// crossed is the server's or the proxy's address of the other family.
func crossed(a netip.AddrPort) netip.AddrPort {
	other := map[string]string{
		lab.ServerIP4: lab.ServerIP6, lab.ServerIP6: lab.ServerIP4,
		lab.ProxyServerIP4: lab.ProxyServerIP6, lab.ProxyServerIP6: lab.ProxyServerIP4,
	}
	return addrPort(other[a.Addr().String()], int(a.Port()))
}

// exchange passes a few bytes in either direction.
func exchange(t *testing.T, cl, srv net.Conn) {
	t.Helper()
	for _, leg := range []struct{ from, to net.Conn }{{cl, srv}, {srv, cl}} {
		if _, err := leg.from.Write([]byte("ping")); err != nil {
			t.Error(err)
		}
		got := make([]byte, 4)
		if _, err := io.ReadFull(leg.to, got); err != nil || string(got) != "ping" {
			t.Errorf("got %q and %v, want ping", got, err)
		}
	}
}

func unmapped(a net.Addr) netip.AddrPort {
	ap := a.(*net.TCPAddr).AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}

// vips returns n virtual addresses of one family.
func vips(ip string, n, port int) []netip.AddrPort {
	a := netip.MustParseAddr(ip)
	var all []netip.AddrPort
	for range n {
		all = append(all, netip.AddrPortFrom(a, uint16(port)))
		a = a.Next()
	}
	return all
}

// shared makes a service with three VIPs of each family and its backends.
func shared(t *testing.T, policy Source, backends int) *meeting {
	t.Helper()
	return meet(t, func(s *Service) {
		s.Source = policy
		if s.Mode == VIP {
			s.Listen = append(vips(lab.VIP4, 3, 80), vips(lab.VIP6, 3, 80)...)
			s.Backends = append(s.Backends,
				Backend{Name: "b4", Addr: addrPort(lab.Server2IP4, 80), Weight: 1},
				Backend{Name: "b6", Addr: addrPort(lab.Server2IP6, 80), Weight: 1})[:2*backends]
		}
	})
}

func TestSourceConflict(t *testing.T) {
	for _, family := range []struct{ name, vip, client string }{
		{"v4", lab.VIP4, lab.ClientIP4}, {"v6", lab.VIP6, lab.ClientIP6},
	} {
		from := addrPort(family.client, 40000)
		to := vips(family.vip, 3, 80)
		t.Run(family.name+"/client", func(t *testing.T) { conflictClient(t, from, to) })
		t.Run(family.name+"/prefer-client", func(t *testing.T) { conflictPrefer(t, from, to) })
		t.Run(family.name+"/second-backend", func(t *testing.T) { conflictSecond(t, from, to) })
	}
}

func (m *meeting) mustReuse(t *testing.T, from, to netip.AddrPort) *net.TCPConn {
	t.Helper()
	c, err := m.dialReusing(from, to)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func (m *meeting) conflicts() uint64 {
	var n uint64
	for _, s := range m.proxy.view.Load().stats {
		n += s.total(func(sh *shard) uint64 { return sh.conflicts.Load() })
	}
	return n
}

func conflictClient(t *testing.T, from netip.AddrPort, to []netip.AddrPort) {
	m := shared(t, Client, 1)
	first := m.mustReuse(t, from, to[0])
	srv := m.accept()
	second := m.mustReuse(t, from, to[1])
	wantReset(t, second)
	r := m.nextRecord(t, 0)
	wantReason(t, r, SourceConflict)
	if r.Destination != to[1] {
		t.Errorf("flow to %v was refused, want %v", r.Destination, to[1])
	}
	if n := m.conflicts(); n != 1 {
		t.Errorf("%d conflicts counted, want 1", n)
	}
	if n := m.proxy.Services()[0].Rejected; n != 1 {
		t.Errorf("%d flows rejected, want 1", n)
	}
	exchange(t, first, srv)
	first.Close()
	srv.Close()
	m.wantBooks(t)
}

func conflictPrefer(t *testing.T, from netip.AddrPort, to []netip.AddrPort) {
	m := shared(t, PreferClient, 1)
	first := m.mustReuse(t, from, to[0])
	srv := m.accept()
	second := m.mustReuse(t, from, to[1])
	srv2 := m.accept()
	exchange(t, second, srv2)
	exchange(t, first, srv)
	sees := unmapped(srv2.RemoteAddr())
	if sees.Addr() != from.Addr() || sees.Port() == from.Port() {
		t.Errorf("backend sees %v, want another port of %v", sees, from)
	}
	if n := m.conflicts(); n != 1 {
		t.Errorf("%d conflicts counted, want 1", n)
	}
	second.Close()
	srv2.Close()
	r := m.nextRecord(t, 0)
	if r.UpstreamSource != sees || r.SourcePolicy != "prefer-client" {
		t.Errorf("record has source %v and policy %s, want %v and prefer-client", r.UpstreamSource, r.SourcePolicy, sees)
	}
	first.Close()
	srv.Close()
	m.wantBooks(t)
}

// conflictSecond has one client port used three times with two backends.
func conflictSecond(t *testing.T, from netip.AddrPort, to []netip.AddrPort) {
	m := shared(t, Client, 2)
	first := m.mustReuse(t, from, to[0])
	srv := m.accept()
	second := m.mustReuse(t, from, to[1])
	srv2 := m.accept()
	exchange(t, first, srv)
	exchange(t, second, srv2)
	if a, b := srv.LocalAddr().String(), srv2.LocalAddr().String(); a == b {
		t.Errorf("both flows have the backend %s", a)
	}
	for _, c := range []net.Conn{srv, srv2} {
		if sees := unmapped(c.RemoteAddr()); sees != from {
			t.Errorf("backend sees %v, want %v", sees, from)
		}
	}
	wantReset(t, m.mustReuse(t, from, to[2]))
	r := m.nextRecord(t, 0)
	wantReason(t, r, SourceConflict)
	if r.Retries != 1 {
		t.Errorf("%d other backends tried, want 1", r.Retries)
	}
	for _, c := range []net.Conn{first, second, srv, srv2} {
		c.Close()
	}
	m.wantBooks(t)
}

// TestPortReuse has a client use one port again and again as soon as it has
// closed: to two VIPs in turn with one backend, and to one destination.
func TestPortReuse(t *testing.T) {
	const rounds, others = 250, 20
	for _, clientFirst := range []bool{true, false} {
		t.Run(fmt.Sprintf("client-first=%v", clientFirst), func(t *testing.T) {
			b := newBed(t, twoVIPs("web", 90), intercept())
			sources := make(chan netip.AddrPort, 2*(rounds+others))
			b.server(90, func(c *net.TCPConn) {
				sources <- unmapped(c.RemoteAddr())
				_, _ = io.CopyN(c, c, 4)
				if clientFirst {
					_, _ = io.ReadAll(c)
				}
			})
			from4, from6 := addrPort(lab.ClientIP4, 41000), addrPort(lab.ClientIP6, 41000)
			v4, v6 := vips(lab.VIP4, 2, 90), vips(lab.VIP6, 2, 90)
			for i := range rounds {
				b.reuse(t, from4, v4[i%2], clientFirst)
				b.reuse(t, from6, v6[i%2], clientFirst)
			}
			for range others {
				b.reuse(t, from4, addrPort(lab.ForeignIP4, 90), clientFirst)
				b.reuse(t, from6, addrPort(lab.ForeignIP6, 90), clientFirst)
			}
			want := UpstreamClose
			if clientFirst {
				want = ClientClose
			}
			for _, r := range b.records.wait(t, 2*(rounds+others)) {
				wantReason(t, r, want)
			}
			b.wantBooks(t)
			for range 2 * (rounds + others) {
				if s := <-sources; s != from4 && s != from6 {
					t.Errorf("backend sees %v, want %v or %v", s, from4, from6)
				}
			}
		})
	}
}

// twoVIPs is vip with a second address of each family.
func twoVIPs(name string, port int) Service {
	s := vip(name, port)
	s.Listen = append(vips(lab.VIP4, 2, port), vips(lab.VIP6, 2, port)...)
	return s
}

// reuse makes one flow and closes it at once.
func (b *bed) reuse(t *testing.T, from, to netip.AddrPort, clientFirst bool) {
	t.Helper()
	c, err := b.dialReusing(from, to)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write([]byte("ping")); err != nil {
		t.Error(err)
	}
	answer := io.Reader(c)
	if clientFirst {
		answer = io.LimitReader(c, 4)
	}
	if got, err := io.ReadAll(answer); err != nil || string(got) != "ping" {
		t.Errorf("%v to %v: got %q and %v, want ping", from, to, got, err)
	}
}
