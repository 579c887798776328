package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/tproxyd/tproxyd/internal/lab"
	"golang.org/x/sys/unix"
)

// TestWildcardVIP listens on all addresses: the host's own are served.
func TestWildcardVIP(t *testing.T) {
	s := vip("web", 80)
	s.Listen = []netip.AddrPort{addrPort("0.0.0.0", 80), addrPort("::", 80)}
	b := newBed(t, s)
	b.server(80, echo)
	for _, ip := range []string{lab.ProxyClientIP4, lab.ProxyServerIP4, lab.ProxyClientIP6, lab.ProxyServerIP6} {
		c := b.dial(addrPort(ip, 80))
		mustPing(t, c)
		c.Close()
	}
	b.ends("web", map[Reason]uint64{ClientClose: 4})
	got := map[netip.AddrPort]bool{}
	for _, r := range b.records.wait(t, 4) {
		got[r.Destination] = true
	}
	if !got[addrPort(lab.ProxyServerIP4, 80)] || !got[addrPort(lab.ProxyClientIP6, 80)] || len(got) != 4 {
		t.Errorf("destinations %v", got)
	}
}

// TestPortRange listens on a range, whose flows all go to one backend.
func TestPortRange(t *testing.T) {
	const ports = 50
	s := vip("web", 80)
	s.Listen = nil
	for p := range ports {
		s.Listen = append(s.Listen, addrPort(lab.VIP4, 1000+p), addrPort(lab.VIP6, 1000+p))
	}
	b := newBed(t, s)
	b.server(80, echo)
	for _, a := range s.Listen {
		c := b.dial(a)
		mustPing(t, c)
		c.Close()
	}
	b.ends("web", map[Reason]uint64{ClientClose: 2 * ports})
	b.apply(Config{Services: []Service{vip("web", 80)}})
	b.wantOpen(2)
}

// wantOpen wants the proxy to listen on so many addresses.
func (b *bed) wantOpen(n int) {
	b.t.Helper()
	var got int
	b.proxy.each(func(w *worker) {
		if w.id == 0 {
			for _, l := range w.listeners {
				if l != nil {
					got++
				}
			}
		}
	})
	if got != n || len(b.proxy.sockets) != n {
		b.t.Errorf("%d listeners of a worker, %d addresses, want %d", got, len(b.proxy.sockets), n)
	}
}

// TestInterceptPool sends what is intercepted to a pool.
func TestInterceptPool(t *testing.T) {
	families(t, lab.ForeignIP4, lab.ForeignIP6, func(t *testing.T, ip string) {
		s := intercept()
		s.Backends = pool(ip, 81)
		b := newBed(t, s)
		b.server(80, name("original"))
		b.server(81, name("pool"))
		if got, err := b.ask(addrPort(ip, 80)); got != "pool" || err != nil {
			t.Errorf("%q, %v", got, err)
		}
		b.ends("any", map[Reason]uint64{UpstreamClose: 1})
		if r := b.record(); r.Destination != addrPort(ip, 80) || r.Backend != s.Backends[0].Addr || r.BackendName != "b81" {
			t.Errorf("record %+v", r)
		}
	})
}

// TestLinkLocal has a client that is known by its link-local address only. The
// backend cannot see it as that, so the service says host.
func TestLinkLocal(t *testing.T) {
	for _, source := range []Source{Host, Client, ClientIP, PreferClient} {
		t.Run(source.String(), func(t *testing.T) {
			s := vip("web", 80)
			s.Listen = []netip.AddrPort{addrPort("::", 80)}
			s.Source, s.Backends, s.ConnectTimeout = source, pool(lab.VIP6, 80), 200*time.Millisecond
			b := newBed(t, s)
			b.server(80, echo)
			to := linkLocal(t, b.Proxy, lab.ClientLink)
			zone := "%" + lab.EndLink
			var d net.Dialer
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			// The zone's name is looked up in this process's namespace.
			c, err := dialZone(ctx, b.Client, d, to, zone)
			if err == nil {
				_ = c.SetDeadline(time.Now().Add(patience))
				err = ping(c)
				c.Close()
			}
			want := map[Reason]uint64{ConnectUnreachable: 1}
			if source == Host {
				want = map[Reason]uint64{ClientClose: 1}
				if err != nil {
					t.Error(err)
				}
			} else if !errors.Is(err, unix.ECONNRESET) && !errors.Is(err, unix.EPIPE) {
				t.Errorf("client: %v, want a reset", err)
			}
			b.ends("web", want)
			r := b.record()
			if !r.Client.Addr().IsLinkLocalUnicast() || r.Client.Addr().Zone() == "" {
				t.Errorf("client %v, want a link-local address with its zone", r.Client)
			}
		})
	}
}

// linkLocal is the link-local address of a link.
func linkLocal(t *testing.T, h *lab.Host, link string) string {
	t.Helper()
	var found string
	err := h.Do(func() error {
		ifi, err := net.InterfaceByName(link)
		if err != nil {
			return err
		}
		addrs, err := ifi.Addrs()
		if err != nil {
			return err
		}
		for _, a := range addrs {
			if n, ok := a.(*net.IPNet); ok && n.IP.IsLinkLocalUnicast() && n.IP.To4() == nil {
				found = n.IP.String()
			}
		}
		return nil
	})
	if err != nil || found == "" {
		t.Fatalf("link-local address of %s: %q, %v", link, found, err)
	}
	return found
}

// dialZone connects to a link-local address by way of the client's only link.
func dialZone(ctx context.Context, h *lab.Host, d net.Dialer, ip, zone string) (c net.Conn, err error) {
	d.SetMultipathTCP(false)
	err = h.Do(func() error {
		ifi, err := net.InterfaceByName(zone[1:])
		if err != nil {
			return err
		}
		c, err = d.DialContext(ctx, "tcp", fmt.Sprintf("[%s%%%d]:80", ip, ifi.Index))
		return err
	})
	return c, err
}

// TestIPv6Off switches IPv6 off. IPv4 goes on; what needs IPv6 either works or
// says what is wrong.
func TestIPv6Off(t *testing.T) {
	b := newBed(t)
	if err := b.Proxy.Sysctl("ipv6.conf.all.disable_ipv6", "1"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Proxy.Sysctl("ipv6.conf.all.disable_ipv6", "0"); err != nil {
			t.Error(err)
		}
	})
	b.server(80, echo)
	s := vip("web", 80)
	if err := b.proxy.Apply(Config{Services: []Service{s}}); err == nil || !strings.Contains(err.Error(), "IPv6") {
		t.Errorf("both families: %v", err)
	}
	// A backend of the family that is off.
	s.Listen, s.Source = s.Listen[:1], Host
	s.Backends, s.Retries = s.Backends[1:], 0
	b.apply(Config{Services: []Service{s}, Records: true})
	b.wantRefused(s.Listen[0])
	r := b.record()
	if r.Reason != "connect_unreachable" {
		t.Errorf("IPv6 backend: %s", r.Reason)
	}
	s.Backends, s.Source = pool(lab.VIP4, 80), Client
	b.apply(Config{Services: []Service{s}})
	c := b.dial(s.Listen[0])
	mustPing(t, c)
	c.Close()
}

// TestStorm has clients that connect and reset at once.
func TestStorm(t *testing.T) {
	families(t, lab.VIP4, lab.VIP6, func(t *testing.T, ip string) {
		// The two workers' accept queues hold 4096 connections each. The kernel
		// forgets a connection that finds its queue full and is then reset.
		const clients, each, ahead = 10, 2500, 2000
		b := newBed(t, vip("web", 80))
		b.server(80, func(c *net.TCPConn) { _, _ = io.Copy(io.Discard, c) })
		before := openDescriptors(t)
		registry := prometheus.NewPedanticRegistry()
		registry.MustRegister(NewCollector(b.proxy))
		stop := make(chan struct{})
		var scrapes, storm sync.WaitGroup
		scrapes.Go(func() { scrape(t, registry, stop) })
		s := serviceStatsOf(t, b.proxy, "web")
		accepted := func() uint64 { return s.total(func(sh *shard) uint64 { return sh.accepted.Load() }) }
		var begun atomic.Uint64
		turn := func() { // waits until the queues have room
			deadline := time.Now().Add(patience)
			for n := begun.Add(1); n > accepted()+ahead && time.Now().Before(deadline); {
				runtime.Gosched()
			}
		}
		for range clients {
			storm.Go(func() {
				if err := b.Client.Do(func() error { return strike(netip.MustParseAddr(ip), each, turn) }); err != nil {
					t.Error(err)
				}
			})
		}
		storm.Wait()
		eventually(t, func() bool { return accepted() == clients*each && b.proxy.Active() == 0 }, "every connection is accepted, and ends")
		close(stop)
		scrapes.Wait()
		var closed uint64
		for r := range reasonCount {
			n := s.total(func(sh *shard) uint64 { return sh.closed[r].Load() })
			closed += n
			switch r {
			case ClientAbort, ClientReset, SourceConflict:
			default:
				if n > 0 {
					t.Errorf("%d flows ended for %v", n, r)
				}
			}
		}
		if closed != clients*each {
			t.Errorf("%d flows ended, %d began", closed, clients*each)
		}
		eventually(t, func() bool { return openDescriptors(t) <= before+2*2*idlePipes }, "no descriptor is left")
		c := b.dial(addrPort(ip, 80))
		c.Close()
	})
}

// strike connects n times, each when turn returns, and resets each connection
// at once.
func strike(ip netip.Addr, n int, turn func()) error {
	var sa unix.Sockaddr = &unix.SockaddrInet6{Port: 80, Addr: ip.As16()}
	family := unix.AF_INET6
	if ip.Is4() {
		sa, family = &unix.SockaddrInet4{Port: 80, Addr: ip.As4()}, unix.AF_INET
	}
	for range n {
		turn()
		fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
		if err != nil {
			return err
		}
		err = unix.Connect(fd, sa)
		_ = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
		_ = unix.Close(fd)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return err
		}
	}
	return nil
}

// scrape looks at the metrics again and again: never have more flows ended than
// begun.
func scrape(t *testing.T, g prometheus.Gatherer, stop <-chan struct{}) {
	for last := false; !last; {
		select {
		case <-stop:
			last = true
		default:
		}
		families, err := g.Gather()
		if err != nil {
			t.Error(err)
			return
		}
		sums := map[string]float64{}
		for _, f := range families {
			for _, m := range f.GetMetric() {
				sums[f.GetName()] += m.GetCounter().GetValue()
			}
		}
		if sums[metricClosed] > sums[metricConnections] {
			t.Errorf("%v flows have ended, %v have begun", sums[metricClosed], sums[metricConnections])
			return
		}
		if last && sums[metricClosed] != sums[metricConnections] {
			t.Errorf("at the end, %v flows have ended, %v have begun", sums[metricClosed], sums[metricConnections])
		}
	}
}

// TestMetricsLint has Prometheus judge the names.
func TestMetricsLint(t *testing.T) {
	b := newBed(t, vip("web", 80), intercept())
	b.server(80, echo)
	c := b.dial(addrPort(lab.VIP4, 80))
	mustPing(t, c)
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(NewCollector(b.proxy))
	problems, err := testutil.GatherAndLint(registry)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
	if n := testutil.CollectAndCount(NewCollector(b.proxy), metricConnections); n != 2 {
		t.Errorf("%d series of %s, want 2", n, metricConnections)
	}
	c.Close()
	b.ends("web", map[Reason]uint64{ClientClose: 1})
}
