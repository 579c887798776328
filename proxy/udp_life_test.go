package proxy

import (
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tproxyd/tproxyd/internal/lab"
)

// TestUDPTimeouts ends flows without a reply, idle ones and old ones, each by
// its own clock.
func TestUDPTimeouts(t *testing.T) {
	const short = 50 * time.Millisecond
	for _, tt := range []struct {
		name   string
		change func(*Service)
		server func([]byte, netip.AddrPort) [][]byte
		want   Reason
	}{
		{"unreplied", func(s *Service) { s.UnrepliedTimeout = short }, func([]byte, netip.AddrPort) [][]byte { return nil }, Unreplied},
		{"unreplied is idle", func(s *Service) { s.UnrepliedTimeout, s.IdleTimeout = 0, short }, func([]byte, netip.AddrPort) [][]byte { return nil }, IdleTimeout},
		{"idle", func(s *Service) { s.IdleTimeout = short }, mirror, IdleTimeout},
		{"lifetime", func(s *Service) { s.MaxLifetime = short }, mirror, LifetimeEnd},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := udpVIP("dns", 53)
			tt.change(&s)
			b := newBed(t, s)
			b.datagramServer(tt.server)
			c := b.talk(addrPort(lab.VIP4, 53))
			if _, err := c.Write([]byte("?")); err != nil {
				t.Fatal(err)
			}
			b.wantEnds("dns", tt.want, 1)
			b.wantUDP("dns", func(n udpCounts) bool { return n.flows == 1 && n.active == 0 })
			r := b.record()
			if r.Reason != tt.want.String() || r.Protocol != "udp" || r.DatagramsIn != 1 || r.BytesIn != 1 ||
				r.Client.String() != c.LocalAddr().String() || r.UpstreamSource != r.Client || r.Destination != addrPort(lab.VIP4, 53) || r.BackendName != "a4" {
				t.Errorf("record %+v", r)
			}
		})
	}
}

// TestUDPRefresh has datagrams of either side keep a flow.
func TestUDPRefresh(t *testing.T) {
	s := udpVIP("dns", 53)
	b := newBed(t, s)
	b.datagramServer(mirror)
	c := b.talk(addrPort(lab.VIP4, 53))
	ask(t, c, []byte("?"))
	var f *udpFlow
	at := func() (last, due int64) {
		b.proxy.each(func(w *worker) {
			w.udp.flows.all(func(g *udpFlow) { f, last, due = g, g.lastActive, w.udp.deadline(g) })
		})
		return last, due
	}
	last, due := at()
	if f == nil || due != last+int64(s.IdleTimeout) {
		t.Fatalf("a flow that was active at %d is due at %d", last, due)
	}
	ask(t, c, []byte("?"))
	if again, _ := at(); again <= last {
		t.Errorf("active at %d, then at %d", last, again)
	}
}

// TestUDPResponses ends a flow with as many replies as each request is to get.
func TestUDPResponses(t *testing.T) {
	families(t, lab.VIP4, lab.VIP6, func(t *testing.T, ip string) {
		s := udpVIP("dns", 53)
		s.Responses = 2
		b := newBed(t, s)
		b.datagramServer(func(data []byte, _ netip.AddrPort) [][]byte { return [][]byte{data, data} })
		c := b.talk(addrPort(ip, 53))
		for range 3 {
			ask(t, c, []byte("?"))
			receive(t, c)
		}
		// Each question begins a flow, if the one before had both answers by
		// then, and else belongs to it.
		b.wantUDP("dns", func(n udpCounts) bool {
			return n.in == 3 && n.out == 6 && n.active == 0 && n.closed[Answered] == uint64(n.flows) && n.dropped == 0
		})
	})
}

// TestUDPTwoQuestions has a client ask twice before the first answer, as stub
// resolvers do for A and AAAA: both get theirs.
func TestUDPTwoQuestions(t *testing.T) {
	s := udpVIP("dns", 53)
	s.Responses = 1
	b := newBed(t, s)
	var held []byte
	b.datagramServer(func(data []byte, _ netip.AddrPort) [][]byte {
		if held == nil {
			held = append([]byte{}, data...)
			return nil
		}
		return [][]byte{held, append([]byte{}, data...)}
	})
	c := b.talk(addrPort(lab.VIP4, 53))
	for _, q := range []string{"A", "AAAA"} {
		if _, err := c.Write([]byte(q)); err != nil {
			t.Fatal(err)
		}
	}
	for _, q := range []string{"A", "AAAA"} {
		if got := string(receive(t, c)); got != q {
			t.Errorf("got %q, want %q", got, q)
		}
	}
	b.wantUDP("dns", func(n udpCounts) bool { return n.flows == 1 && n.closed[Answered] == 1 && n.active == 0 })
}

// TestUDPRequests has every second datagram of a client begin a new flow, to
// the next backend.
func TestUDPRequests(t *testing.T) {
	for _, mode := range []Mode{VIP, Intercept} {
		t.Run(mode.String(), func(t *testing.T) {
			s, to := udpVIP("dns", 53), lab.VIP4
			if mode == Intercept {
				s, to = udpIntercept(), lab.ForeignIP4
				s.Name = "dns"
			}
			s.Requests = 2
			s.Backends = []Backend{{Name: "one", Addr: addrPort(lab.ServerIP4, 53), Weight: 1}, {Name: "two", Addr: addrPort(lab.ServerIP4, 54), Weight: 1}}
			s.Listen = s.Listen[:1]
			b := newBed(t, s)
			for _, port := range []int{53, 54} {
				b.datagramServerOn(lab.ServerIP4, port, func([]byte, netip.AddrPort) [][]byte { return [][]byte{{byte(port)}} })
			}
			c := b.talk(addrPort(to, 53))
			var got []byte
			for range 12 {
				got = append(got, ask(t, c, []byte("?"))...)
			}
			for i := 0; i < 4; i += 2 {
				if got[i] != got[i+1] {
					t.Errorf("datagrams %d and %d went to %d and %d", i, i+1, got[i], got[i+1])
				}
			}
			if got[0] == got[2] {
				t.Errorf("backends %v, want every two datagrams another", got)
			}
			// With both backends taken by the client's port, its flows go on.
			b.wantUDP("dns", func(n udpCounts) bool { return n.flows == 2 && n.in == 12 && n.out == 12 && n.dropped == 0 })
		})
	}
}

// TestUDPEviction has more clients than flows: the oldest make room, those
// without a reply first.
func TestUDPEviction(t *testing.T) {
	s := udpVIP("dns", 53)
	s.MaxFlows = 10
	b := newBedWorkers(t, 1, Config{Services: []Service{s}, DrainTimeout: time.Second, Records: true})
	b.datagramServer(func(data []byte, from netip.AddrPort) [][]byte {
		if string(data) == "quiet" {
			return nil
		}
		return [][]byte{data}
	})
	old := b.talk(addrPort(lab.VIP4, 53))
	for range 2 {
		ask(t, old, []byte("confirmed"))
	}
	for i := range 30 {
		c := b.talk(addrPort(lab.VIP4, 53))
		if _, err := c.Write([]byte("quiet")); err != nil {
			t.Fatal(err)
		}
		b.wantUDP("dns", func(n udpCounts) bool { return n.flows == int64(i+2) && n.active <= 10 })
	}
	ask(t, old, []byte("still there"))
	b.wantUDP("dns", func(n udpCounts) bool {
		return n.flows == 31 && n.active == 10 && n.evicted == 21 && n.closed[Evicted] == 21 && n.dropped == 0
	})
}

// TestUDPEvictionElsewhere has a worker whose limit other workers' flows have
// reached: it gets room for the client that tries again.
func TestUDPEvictionElsewhere(t *testing.T) {
	s := udpVIP("dns", 53)
	s.MaxFlows = 1
	b := newBed(t, s)
	b.datagramServer(mirror)
	for range 20 { // some of which the kernel gives to the one worker, some to the other
		c := b.talk(addrPort(lab.VIP4, 53))
		eventually(t, func() bool {
			if _, err := c.Write([]byte("?")); err != nil {
				t.Fatal(err)
			}
			_ = c.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
			n, err := c.Read(make([]byte, 10))
			return err == nil && n == 1
		}, "the client is served")
	}
	b.wantUDP("dns", func(n udpCounts) bool { return n.active == 1 && n.evicted == uint64(n.flows)-1 })
}

// TestUDPReload changes a service under a flow.
func TestUDPReload(t *testing.T) {
	s := udpVIP("dns", 53)
	s.Listen, s.Backends = s.Listen[:1], s.Backends[:1]
	b := newBed(t, s)
	b.datagramServer(mirror)
	b.datagramServerOn(lab.ServerIP4, 54, func([]byte, netip.AddrPort) [][]byte { return [][]byte{[]byte("new")} })
	c := b.talk(addrPort(lab.VIP4, 53))
	same := func() {
		t.Helper()
		if got := string(ask(t, c, []byte("old"))); got != "old" {
			t.Fatalf("got %q", got)
		}
	}
	same()
	config := func(s ...Service) Config { return Config{Services: s, DrainTimeout: time.Minute, Records: true} }

	// Another timeout, more backends, other services: the flow goes on.
	s.IdleTimeout = 2 * time.Minute
	s.Backends = []Backend{{Name: "b", Addr: addrPort(lab.ServerIP4, 54), Weight: 1}, s.Backends[0]}
	b.apply(config(s, udpVIP("other", 5353), vip("web", 80)))
	same()
	b.proxy.each(func(w *worker) {
		w.udp.flows.all(func(f *udpFlow) {
			if f.part.svc.IdleTimeout != s.IdleTimeout || f.drainAt != 0 {
				t.Errorf("the flow has the idle timeout %v and ends at %d", f.part.svc.IdleTimeout, f.drainAt)
			}
		})
	})

	// Its backend goes: it has the drain timeout, new flows go elsewhere.
	s.Backends = s.Backends[:1]
	b.apply(config(s))
	same()
	if got := string(ask(t, b.talk(addrPort(lab.VIP4, 53)), []byte("?"))); got != "new" {
		t.Errorf("a new flow got %q", got)
	}
	// The service goes, and comes back: so does the socket that flows are on.
	b.apply(config(vip("web", 80)))
	same()
	late := b.talk(addrPort(lab.VIP4, 53))
	if _, err := late.Write([]byte("?")); err != nil {
		t.Fatal(err)
	}
	b.wantDrop("dns", dropDraining)
	b.apply(config(s))
	same()
	if got := string(ask(t, late, []byte("?"))); got != "new" {
		t.Errorf("after the service came back a flow got %q", got)
	}
	if n := b.udpCounts("dns"); n.flows != 3 || n.active != 3 {
		t.Errorf("counters %+v", n)
	}

	// And goes at once.
	c2 := config(vip("web", 80))
	c2.DrainTimeout = 0
	b.apply(c2)
	b.wantEnds("dns", Drained, 3)
	eventually(t, func() bool {
		var left atomic.Int64
		b.proxy.each(func(w *worker) {
			for _, l := range w.udp.listeners {
				if l != nil {
					left.Add(1)
				}
			}
		})
		return left.Load() == 0
	}, "the listeners are closed")
}

// TestUDPReloadOntoFlow adds a virtual IP that a flow of an intercept service
// replies from.
func TestUDPReloadOntoFlow(t *testing.T) {
	everything, dns := udpIntercept(), udpVIP("dns", 53)
	dns.Listen = []netip.AddrPort{addrPort(lab.ForeignIP4, 53)}
	b := newBed(t, everything)
	b.datagramServerOn(lab.ForeignIP4, 53, mirror)
	b.datagramServer(func([]byte, netip.AddrPort) [][]byte { return [][]byte{[]byte("backend")} })
	c := b.talk(addrPort(lab.ForeignIP4, 53))
	ask(t, c, []byte("?"))
	b.apply(Config{Services: []Service{everything, dns}, DrainTimeout: time.Minute})
	if got := string(ask(t, c, []byte("still here"))); got != "still here" {
		t.Errorf("got %q", got)
	}
	if got := string(ask(t, b.talk(addrPort(lab.ForeignIP4, 53)), []byte("?"))); got != "backend" {
		t.Errorf("a new flow got %q", got)
	}
}

// TestUDPDrain has a proxy that shuts down let flows go on.
func TestUDPDrain(t *testing.T) {
	s := udpVIP("dns", 53)
	b := newBedConfig(t, Config{Services: []Service{s}, DrainTimeout: 300 * time.Millisecond, Records: true})
	b.datagramServer(mirror)
	c := b.talk(addrPort(lab.VIP4, 53))
	ask(t, c, []byte("before"))
	done := make(chan struct{})
	go func() { b.proxy.Drain(t.Context()); close(done) }()
	<-done
	b.wantEnds("dns", Drained, 1)
	b.wantUDP("dns", func(n udpCounts) bool { return n.active == 0 })
}

// TestUDPNoBackend has no backend of the client's family.
func TestUDPNoBackend(t *testing.T) {
	s := udpVIP("dns", 53)
	s.Backends = s.Backends[:1]
	b := newBed(t, s)
	c := b.talk(addrPort(lab.VIP6, 53))
	if _, err := c.Write([]byte("?")); err != nil {
		t.Fatal(err)
	}
	b.wantDrop("dns", dropNoBackend)
	if n := b.proxy.Services()[0].Rejected; n != 1 {
		t.Errorf("%d rejected, want 1", n)
	}
}

// TestUDPWildcard listens on all addresses: replies come from the one that the
// client spoke to.
func TestUDPWildcard(t *testing.T) {
	s := udpVIP("dns", 53)
	s.Listen = []netip.AddrPort{addrPort("0.0.0.0", 53), addrPort("::", 53)}
	b := newBed(t, s)
	b.datagramServer(whoami)
	for _, ip := range []string{lab.ProxyClientIP4, lab.ProxyServerIP4, lab.ProxyClientIP6, lab.ProxyServerIP6} {
		c := b.talk(addrPort(ip, 53)) // connected: the reply has to come from there
		for range 2 {
			if got := string(ask(t, c, []byte("?"))); got != c.LocalAddr().String() {
				t.Errorf("%s: the backend saw %s, the client is %s", ip, got, c.LocalAddr().(*net.UDPAddr))
			}
		}
	}
}
