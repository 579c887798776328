package proxy

import (
	"context"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/tproxyd/tproxyd/internal/lab"
	"github.com/tproxyd/tproxyd/internal/rules"
)

// TestLoopDirect connects to the address of the intercept listener itself, from
// outside and from the host.
func TestLoopDirect(t *testing.T) {
	b := newBed(t, intercept())
	for _, ip := range []string{lab.ProxyClientIP4, lab.ProxyServerIP4, lab.ProxyClientIP6, lab.ProxyServerIP6} {
		b.wantRefused(addrPort(ip, interceptPort))
	}
	for _, ip := range []string{"127.0.0.1", "127.1.2.3", "::1", lab.ProxyClientIP4, lab.ProxyClientIP6} {
		b.fromProxy(func() { b.wantRefused(addrPort(ip, interceptPort)) })
	}
	b.ends("any", map[Reason]uint64{Loop: 9})
	b.wantTries("any", originalBackend, map[string]uint64{})
	for _, r := range b.records.wait(t, 9) {
		if r.Reason != "loop" || r.Term != "PR" || r.Destination.Port() != interceptPort {
			t.Errorf("record %+v", r)
		}
	}
	if n := b.proxy.Services()[0].Rejected; n != 9 {
		t.Errorf("%d rejected, want 9", n)
	}
}

// TestLoopListener has somebody's rule bring the traffic of a virtual address of
// ours to the intercept listener.
func TestLoopListener(t *testing.T) {
	b := newBed(t, intercept(), vip("web", 80))
	b.server(80, echo)
	for _, args := range [][]string{
		{"add", "table", "inet", "wrong"},
		{"add", "chain", "inet", "wrong", "pre", "{ type filter hook prerouting priority -160; }"},
		{"add", "rule", "inet", "wrong", "pre", "ip daddr " + lab.VIP4 + " tcp dport 80 tproxy ip to :15001 meta mark set 0x7471 accept"},
		{"add", "rule", "inet", "wrong", "pre", "ip6 daddr " + lab.VIP6 + " tcp dport 80 tproxy ip6 to :15001 meta mark set 0x7471 accept"},
	} {
		if out, err := b.Proxy.Command(t.Context(), "nft", args...).CombinedOutput(); err != nil {
			t.Fatalf("nft %v: %v: %s", args, err, out)
		}
	}
	b.wantRefused(addrPort(lab.VIP4, 80))
	b.wantRefused(addrPort(lab.VIP6, 80))
	b.ends("any", map[Reason]uint64{Loop: 2})
	b.ends("web", map[Reason]uint64{})
}

const exempt = 0x99

// localOutput makes a bed that intercepts also what the proxy's host sends.
func localOutput(t *testing.T, source Source, mark uint32) *bed {
	t.Helper()
	s := intercept()
	s.Source, s.ConnectTimeout = source, 200*time.Millisecond
	b := localOutputOf(t, s, mark)
	b.server(80, echo)
	return b
}

// localOutputOf makes a bed with the service s that intercepts also what the
// proxy's host sends.
func localOutputOf(t *testing.T, s Service, mark uint32) *bed {
	t.Helper()
	b := newBedConfig(t, Config{Services: []Service{s}, Mark: mark, DrainTimeout: time.Second, Records: true})
	err := rules.Apply(rules.Plan{ExemptMark: exempt, Intercepts: []rules.Intercept{{
		Name:         "foreign",
		DestPrefixes: []netip.Prefix{netip.MustParsePrefix(lab.ForeignNet4), netip.MustParsePrefix(lab.ForeignNet6)},
		ToPort:       interceptPort, OnFailure: rules.Block, LocalOutput: true,
	}}})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestLocalOutput intercepts a client on the proxy's own host. It is one hop:
// the mark exempts what the proxy sends itself. The client's address and port
// are not to be had, because they are in use on this very host.
func TestLocalOutput(t *testing.T) {
	for _, source := range []Source{Client, ClientIP, PreferClient, Host} {
		t.Run(source.String(), func(t *testing.T) {
			b := localOutput(t, source, exempt)
			for _, ip := range []string{lab.ForeignIP4, lab.ForeignIP6} {
				if source == Client {
					b.fromProxy(func() { b.wantRefused(addrPort(ip, 80)) })
					continue
				}
				b.fromProxy(func() {
					c := b.dial(addrPort(ip, 80))
					mustPing(t, c)
					c.Close()
				})
			}
			if source == Client {
				b.ends("any", map[Reason]uint64{SourceConflict: 2})
			} else {
				b.ends("any", map[Reason]uint64{ClientClose: 2})
			}
		})
	}
}

// fromProxy has fn find the proxy's host in the client's place.
func (b *bed) fromProxy(fn func()) {
	b.Client, b.Proxy = b.Proxy, b.Client
	defer func() { b.Client, b.Proxy = b.Proxy, b.Client }()
	fn()
}

// TestLoopUnmarked lacks the mark, so that the proxy meets its own connections.
// Each chain of flows ends after a few.
func TestLoopUnmarked(t *testing.T) {
	const chains, longest = 4, 8
	for _, source := range []Source{Client, ClientIP, PreferClient, Host} {
		t.Run(source.String(), func(t *testing.T) {
			b := localOutput(t, source, 0)
			for _, ip := range []string{lab.ForeignIP4, lab.ForeignIP6} {
				b.wantRefused(addrPort(ip, 80))
				b.fromProxy(func() { b.wantRefused(addrPort(ip, 80)) })
			}
			eventually(t, func() bool { return b.proxy.Active() == 0 }, "no flow is left")
			n := serviceStatsOf(t, b.proxy, "any").total(func(sh *shard) uint64 { return sh.accepted.Load() })
			if n > chains*longest {
				t.Errorf("%d flows from %d connections", n, chains)
			}
			got := map[string]int{}
			for _, r := range b.records.wait(t, int(n)) {
				got[r.Reason]++
			}
			if got["client_close"]+got["upstream_close"] > 0 {
				t.Errorf("flows that ended well: %v", got)
			}
			if source != Client && got["loop"] == 0 {
				t.Errorf("no loop was found: %v", got)
			}
		})
	}
}

// TestLoopIsNone has a client connect from the very port that the proxy uses,
// with the client's address, to another server.
func TestLoopIsNone(t *testing.T) {
	families(t, lab.ForeignIP4, lab.ForeignIP6, func(t *testing.T, ip string) {
		s := intercept()
		s.Source = ClientIP
		b := newBed(t, s)
		seen := make(chan string, 1)
		b.server(90, func(c *net.TCPConn) { seen <- c.RemoteAddr().String(); echo(c) })
		b.server(80, echo)
		first := b.dial(addrPort(ip, 90))
		second, err := b.Client.DialFrom(t.Context(), "tcp", <-seen, addrPort(ip, 80).String())
		if err != nil {
			t.Fatal(err)
		}
		mustPing(t, second)
		second.Close()
		first.Close()
		eventually(t, func() bool { return b.proxy.Active() == 0 }, "the flows have ended")
	})
}

// TestLoopGuard looks at the addresses alone.
func TestLoopGuard(t *testing.T) {
	var g loopGuard
	if g.loops(addrPort("198.18.1.2", 1), addrPort("198.18.1.1", 80)) {
		t.Error("a guard that knows nothing finds a loop")
	}
	own := newListens([]Service{{Listen: []netip.AddrPort{
		addrPort("0.0.0.0", 15001), addrPort("203.0.113.10", 80), netip.MustParseAddrPort("[fe80::1%lo]:81"),
	}}})
	g.listens.Store(&own)
	source := addrPort("198.18.2.1", 40000)
	g.add(addrPair{newEndpoint(source), newEndpoint(addrPort("198.18.3.1", 80))})
	for _, tt := range []struct {
		client, dest string
		want         bool
	}{
		{"198.18.1.2:1", "203.0.113.10:80", true},
		{"198.18.1.2:1", "203.0.113.10:81", false},
		{"198.18.1.2:1", "127.0.0.1:15001", true},
		{"198.18.1.2:1", "198.18.3.1:15001", false}, // somebody else's
		{"[2001:db8::2]:1", "[::1]:15001", false},   // we listen on v4 only
		{"[fe80::2%1]:1", "[fe80::1%1]:81", true},
		{source.String(), "198.18.3.1:80", true},
		{source.String(), "198.18.3.1:81", false}, // a client's with the same port
	} {
		if got := g.loops(netip.MustParseAddrPort(tt.client), netip.MustParseAddrPort(tt.dest)); got != tt.want {
			t.Errorf("from %s to %s: %v, want %v", tt.client, tt.dest, got, tt.want)
		}
	}
	w := &worker{proxy: &Proxy{}}
	f := &flow{head: head{source: newEndpoint(source), dest: newEndpoint(addrPort("198.18.3.1", 80))}, guarded: true}
	pair := addrPair{f.source, f.dest}
	w.proxy.guard.add(pair)
	w.unguard(f)
	if w.proxy.guard.has(pair) || w.proxy.guard.n.Load() != 0 || f.guarded {
		t.Error("a source that was taken out is still there")
	}
}

// TestBackendIsListener has a listener on all addresses, and a backend that is
// the host itself.
func TestBackendIsListener(t *testing.T) {
	b := newBed(t)
	for _, tt := range []struct {
		listen, backend string
		ok              bool
	}{
		{"0.0.0.0:80", lab.ProxyServerIP4 + ":80", false},
		{"[::]:80", "[" + lab.ProxyServerIP6 + "]:80", false},
		{"0.0.0.0:80", "127.0.0.1:80", false},
		{"0.0.0.0:80", lab.ServerIP4 + ":80", true},
		{"0.0.0.0:80", lab.ProxyServerIP4 + ":81", true},
		{"0.0.0.0:80", "[::1]:80", true},
	} {
		s := vip("web", 80)
		s.Listen = []netip.AddrPort{netip.MustParseAddrPort(tt.listen)}
		s.Backends = []Backend{{Name: "b", Addr: netip.MustParseAddrPort(tt.backend), Weight: 1}}
		if err := b.proxy.Apply(Config{Services: []Service{s}}); (err == nil) != tt.ok {
			t.Errorf("listen %s, backend %s: %v", tt.listen, tt.backend, err)
		}
	}
	b.proxy.Drain(context.Background())
}
