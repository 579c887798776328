package proxy

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/tproxyd/tproxyd/internal/lab"
	"golang.org/x/sys/unix"
)

// Nobody listens on the ports from 81 on, so the server answers with RST.

func TestRefusedGoesOn(t *testing.T) {
	families(t, lab.VIP4, lab.VIP6, func(t *testing.T, ip string) {
		s := vip("web", 80)
		s.Backends, s.Retries = pool(ip, 81, 82, 80), 2
		b := newBed(t, s)
		b.server(80, echo)
		for range 6 {
			c := b.dial(addrPort(ip, 80))
			mustPing(t, c)
			c.Close()
		}
		b.ends("web", map[Reason]uint64{ClientClose: 6})
		b.wantTries("web", "b80", map[string]uint64{"ok": 6})
		n := 0
		for _, r := range b.records.wait(t, 6) {
			if r.BackendName != "b80" || r.BytesIn != 4 || r.BytesOut != 4 {
				t.Errorf("record %+v", r)
			}
			n += r.Retries
		}
		if refused := b.tries("web", "b81")["refused"] + b.tries("web", "b82")["refused"]; int(refused) != n || n == 0 {
			t.Errorf("%d refused tries, %d retries in the records", refused, n)
		}
	})
}

func TestAllRefuse(t *testing.T) {
	for _, tt := range []struct{ retries, tries int }{{0, 1}, {1, 2}, {2, 3}, {10, 4}} {
		families(t, lab.VIP4, lab.VIP6, func(t *testing.T, ip string) {
			s := vip("web", 80)
			s.Backends, s.Retries = pool(ip, 81, 82, 83, 84), tt.retries
			b := newBed(t, s)
			b.wantRefused(addrPort(ip, 80))
			b.ends("web", map[Reason]uint64{ConnectRefused: 1})
			var n uint64
			for _, name := range []string{"b81", "b82", "b83", "b84"} {
				n += b.tries("web", name)["refused"]
			}
			if int(n) != tt.tries {
				t.Errorf("%d tries with retries = %d and 4 backends, want %d", n, tt.retries, tt.tries)
			}
			if r := b.record(); r.Reason != "connect_refused" || r.Term != "SC" || r.Retries != tt.tries-1 || r.Connect != -1 {
				t.Errorf("record %+v", r)
			}
		})
	}
}

func TestInterceptRefused(t *testing.T) {
	families(t, lab.ForeignIP4, lab.ForeignIP6, func(t *testing.T, ip string) {
		s := intercept()
		s.Retries = 5 // there is nowhere else to go
		b := newBed(t, s)
		b.wantRefused(addrPort(ip, 81))
		b.ends("any", map[Reason]uint64{ConnectRefused: 1})
		b.wantTries("any", originalBackend, map[string]uint64{"refused": 1})
	})
}

// swallow makes the server drop what comes to port, without a word.
func (b *bed) swallow(port string) {
	b.t.Helper()
	for _, args := range [][]string{
		{"add", "table", "inet", "swallow"},
		{"add", "chain", "inet", "swallow", "in", "{ type filter hook prerouting priority raw; }"},
		{"add", "rule", "inet", "swallow", "in", "tcp", "dport", port, "drop"},
	} {
		if out, err := b.Server.Command(b.t.Context(), "nft", args...).CombinedOutput(); err != nil {
			b.t.Fatalf("nft %v: %v: %s", args, err, out)
		}
	}
}

func TestBlackHoleGoesOn(t *testing.T) {
	families(t, lab.VIP4, lab.VIP6, func(t *testing.T, ip string) {
		s := vip("web", 80)
		s.Backends, s.Retries, s.ConnectTimeout = pool(ip, 90, 91, 80), 2, 50*time.Millisecond
		b := newBed(t, s)
		b.swallow("90-91")
		b.server(80, echo)
		for range 3 { // so that each worker begins with a black hole
			c := b.dial(addrPort(ip, 80))
			mustPing(t, c)
			c.Close()
		}
		b.ends("web", map[Reason]uint64{ClientClose: 3})
		b.wantTries("web", "b80", map[string]uint64{"ok": 3})
		for _, r := range b.records.wait(t, 3) {
			if r.Connect < 0 || r.Connect >= s.ConnectTimeout || r.Queue < time.Duration(r.Retries)*s.ConnectTimeout {
				t.Errorf("%d retries, queue %v and connect %v", r.Retries, r.Queue, r.Connect)
			}
		}
	})
}

func TestAllBlackHoles(t *testing.T) {
	families(t, lab.VIP4, lab.VIP6, func(t *testing.T, ip string) {
		s := vip("web", 80)
		s.Backends, s.Retries, s.ConnectTimeout = pool(ip, 90, 91, 92, 93), 2, 30*time.Millisecond
		b := newBed(t, s)
		b.swallow("90-93")
		b.wantRefused(addrPort(ip, 80))
		b.ends("web", map[Reason]uint64{ConnectTimeout: 1})
		var n uint64
		for _, name := range []string{"b90", "b91", "b92", "b93"} {
			n += b.tries("web", name)["timeout"]
		}
		if r := b.record(); n != 3 || r.Retries != 2 || r.Term != "sC" || r.Duration < 3*s.ConnectTimeout {
			t.Errorf("%d tries, want 3; record %+v", n, r)
		}
	})
}

func TestUnreachable(t *testing.T) {
	families(t, lab.VIP4, lab.VIP6, func(t *testing.T, ip string) {
		s := vip("web", 80)
		gone := "198.19.0.1"
		if ip == lab.VIP6 {
			gone = "2001:db8:dead::1"
		}
		s.Backends = []Backend{{Name: "gone", Addr: addrPort(gone, 80), Weight: 1}}
		b := newBed(t, s)
		b.wantRefused(addrPort(ip, 80))
		b.ends("web", map[Reason]uint64{ConnectUnreachable: 1})
	})
}

// TestVanishes cuts the wire to one of the peers: while bytes are on their way
// to it, and while nothing is said at all.
func TestVanishes(t *testing.T) {
	for _, tt := range []struct {
		name string
		cut  func(*lab.Lab) (func() error, error)
		want Reason
	}{
		{"server", (*lab.Lab).CutServer, UpstreamLost},
		{"client", (*lab.Lab).CutClient, ClientLost},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := vip("web", 80)
			s.Keepalive, s.UserTimeout = time.Second, time.Second
			b := newBed(t, s)
			flows := b.vanishing()
			restore, err := tt.cut(b.Lab)
			if err != nil {
				t.Fatal(err)
			}
			for i, f := range flows {
				if i%2 == 1 {
					continue // says nothing: keepalive has to find out
				}
				from := f.server
				if tt.want == UpstreamLost {
					from = f.client
				}
				if _, err := io.WriteString(from, "anyone there?"); err != nil {
					t.Fatal(err)
				}
			}
			for _, f := range flows {
				// The peer that is still there gets a reset.
				if tt.want == UpstreamLost {
					wantRST(t, f.client)
				} else {
					wantRST(t, f.server)
				}
			}
			b.ends("web", map[Reason]uint64{tt.want: uint64(len(flows))})
			for _, r := range b.records.wait(t, len(flows)) {
				if r.Reason != tt.want.String() || r.Term != tt.want.Term() {
					t.Errorf("record %+v", r)
				}
			}
			if err := restore(); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// pair is a flow's two ends.
type pair struct{ client, server *net.TCPConn }

// vanishing returns two flows of each family that have been used.
func (b *bed) vanishing() []pair {
	b.t.Helper()
	served := make(chan *net.TCPConn, 1)
	done := make(chan struct{})
	b.server(80, func(c *net.TCPConn) {
		if _, err := io.ReadFull(c, make([]byte, 4)); err != nil {
			b.t.Error(err)
		}
		served <- c
		<-done
	})
	b.t.Cleanup(func() { close(done) }) // before the server's, which waits
	var all []pair
	for _, ip := range []string{lab.VIP4, lab.VIP4, lab.VIP6, lab.VIP6} {
		c := b.dial(addrPort(ip, 80))
		if _, err := io.WriteString(c, "ping"); err != nil {
			b.t.Fatal(err)
		}
		all = append(all, pair{c, <-served})
	}
	return all
}

// TestClientLeaves has the client reset its connection while the upstream is
// not there yet.
func TestClientLeaves(t *testing.T) {
	families(t, lab.VIP4, lab.VIP6, func(t *testing.T, ip string) {
		s := vip("web", 80)
		s.Backends, s.ConnectTimeout = pool(ip, 90), time.Minute
		b := newBed(t, s)
		b.swallow("90")
		c := b.dial(addrPort(ip, 80))
		eventually(t, func() bool { return b.backendActive("web", "b90") == 1 }, "the upstream connects")
		if err := c.SetLinger(0); err != nil {
			t.Fatal(err)
		}
		c.Close()
		b.ends("web", map[Reason]uint64{ClientAbort: 1})
		if r := b.record(); r.Reason != "client_abort" || r.Term != "CC" {
			t.Errorf("record %+v", r)
		}
	})
}

func (b *bed) backendActive(service, backend string) (n int64) {
	for _, sh := range serviceStatsOf(b.t, b.proxy, service).backend(backend).shards {
		n += sh.active.Load()
	}
	return n
}

// TestEarlyFIN has clients say all and end their stream before the upstream is
// there. Nothing of it is lost, nor is the answer.
func TestEarlyFIN(t *testing.T) {
	s := vip("web", 80)
	s.ConnectTimeout = time.Minute
	b := newBed(t, s)
	b.server(80, func(c *net.TCPConn) {
		all, err := io.ReadAll(c)
		if err != nil {
			t.Error(err)
		}
		_, _ = io.WriteString(c, "got "+string(all))
	})
	restore, err := b.CutServer()
	if err != nil {
		t.Fatal(err)
	}
	type early struct {
		first, second string
		conn          *net.TCPConn
	}
	var all []early
	for _, ip := range []string{lab.VIP4, lab.VIP6} {
		for _, parts := range [][2]string{{"", ""}, {"all of it", ""}, {"a part", " and the rest"}, {strings.Repeat("x", 100_000), "y"}} {
			c := b.dial(addrPort(ip, 80))
			if _, err := io.WriteString(c, parts[0]); err != nil {
				t.Fatal(err)
			}
			all = append(all, early{parts[0], parts[1], c})
		}
	}
	eventually(t, func() bool { return b.proxy.Active() == int64(len(all)) }, "the flows are accepted")
	for _, e := range all {
		if _, err := io.WriteString(e.conn, e.second); err != nil {
			t.Fatal(err)
		}
		if err := e.conn.CloseWrite(); err != nil {
			t.Fatal(err)
		}
	}
	if err := restore(); err != nil {
		t.Fatal(err)
	}
	for _, e := range all {
		if a, err := io.ReadAll(e.conn); err != nil || string(a) != "got "+e.first+e.second {
			t.Errorf("client %v read %d bytes, %v", e.conn.LocalAddr(), len(a), err)
		}
	}
	b.ends("web", map[Reason]uint64{ClientClose: uint64(len(all))})
}

// TestPortsRunOut leaves the kernel 20 ports, for 30 clients.
func TestPortsRunOut(t *testing.T) {
	for _, source := range []Source{Host, ClientIP, PreferClient} {
		t.Run(source.String(), func(t *testing.T) {
			families(t, lab.VIP4, lab.VIP6, func(t *testing.T, ip string) {
				s := vip("web", 80)
				s.Source, s.Backends = source, pool(ip, 80)
				b := newBed(t, s)
				b.server(80, echo)
				// Flows of other tests have left ports of the usual range in TIME_WAIT.
				if err := b.Proxy.Sysctl("ipv4.ip_local_port_range", "10000 10019"); err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() {
					if err := b.Proxy.Sysctl("ipv4.ip_local_port_range", "32768 60999"); err != nil {
						t.Error(err)
					}
				})
				want := uint64(10)
				if source == PreferClient {
					want = 0 // the clients' own ports are free
				}
				if got := b.refused(addrPort(ip, 80), 30); got != want {
					t.Errorf("%d clients refused, want %d", got, want)
				}
				ends := map[Reason]uint64{ClientReset: 30 - want}
				if want > 0 {
					ends[PortsExhausted] = want
				}
				b.ends("web", ends)
				if n := b.proxy.Services()[0].Rejected; n != want {
					t.Errorf("%d rejected, want %d", n, want)
				}
			})
		})
	}
}

// refused holds n connections at once, and counts those that get a reset
// instead of their answer.
func (b *bed) refused(to netip.AddrPort, n int) (resets uint64) {
	b.t.Helper()
	var held []*net.TCPConn
	for range n {
		c, err := b.tryDial(to)
		if err == nil {
			held = append(held, c)
			err = ping(c)
		}
		if errors.Is(err, unix.ECONNRESET) || errors.Is(err, unix.EPIPE) {
			resets++
		} else if err != nil {
			b.t.Errorf("neither served nor reset: %v", err)
		}
	}
	for _, c := range held {
		_ = c.SetLinger(0) // a reset leaves no port in TIME_WAIT
		c.Close()
	}
	return resets
}

// TestNoBackend has no backend that could see the client's address.
func TestNoBackend(t *testing.T) {
	families(t, lab.VIP4, lab.VIP6, func(t *testing.T, ip string) {
		other := lab.VIP6
		if ip == lab.VIP6 {
			other = lab.VIP4
		}
		s := vip("web", 80)
		s.Backends = pool(other, 80)
		b := newBed(t, s)
		b.server(80, echo)
		b.wantRefused(addrPort(ip, 80))
		b.ends("web", map[Reason]uint64{NoBackend: 1})
		s.Source = Host
		if err := b.proxy.Apply(Config{Services: []Service{s}, Records: true}); err != nil {
			t.Fatal(err)
		}
		c := b.dial(addrPort(ip, 80))
		mustPing(t, c)
		c.Close()
		b.ends("web", map[Reason]uint64{NoBackend: 1, ClientClose: 1})
	})
}
