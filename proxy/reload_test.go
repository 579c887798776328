package proxy

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tproxyd/tproxyd/internal/lab"
	"github.com/tproxyd/tproxyd/internal/sys"
	"golang.org/x/sys/unix"
)

func (b *bed) apply(c Config) {
	b.t.Helper()
	if err := b.proxy.Apply(c); err != nil {
		b.t.Fatal(err)
	}
}

// name writes a word to everybody who connects.
func name(word string) func(*net.TCPConn) {
	return func(c *net.TCPConn) { _, _ = io.WriteString(c, word) }
}

// ask returns the word that the server at to writes.
func (b *bed) ask(to netip.AddrPort) (string, error) {
	c, err := b.tryDial(to)
	if err != nil {
		return "", err
	}
	defer c.Close()
	word, err := io.ReadAll(c)
	return string(word), err
}

// TestReloadUnderLoad reloads 20 times while clients come and go and others
// stay. Nobody notices.
func TestReloadUnderLoad(t *testing.T) {
	web := vip("web", 80)
	b := newBed(t, web)
	b.server(80, echo)
	b.server(81, echo)
	var held []*net.TCPConn
	for _, ip := range []string{lab.VIP4, lab.VIP6} {
		for range 20 {
			held = append(held, b.dial(addrPort(ip, 80)))
		}
	}
	sockets := b.proxy.sockets[listenKey{TCP, web.Listen[0]}]
	var served atomic.Int64
	stop := make(chan struct{})
	var clients sync.WaitGroup
	for i := range 8 {
		to := web.Listen[i%2]
		clients.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				c, err := b.tryDial(to)
				if err == nil {
					err = ping(c)
					c.Close()
				}
				if err != nil {
					t.Error(err)
					return
				}
				served.Add(1)
			}
		})
	}
	for i := range 20 {
		at := served.Load()
		eventually(t, func() bool { return served.Load() > at+10 || t.Failed() }, "clients are served between reloads")
		c := Config{Services: []Service{web}, DrainTimeout: time.Minute, Records: i%3 != 0}
		if i%2 == 1 {
			c.Services = append(c.Services, vip("other", 81))
		}
		if i%4 == 0 {
			c.Services[0].IdleTimeout += time.Duration(i) * time.Second
			c.Services[0].Backends = append(pool(lab.VIP4, 81), pool(lab.VIP6, 80)...)
		}
		b.apply(c)
	}
	close(stop)
	clients.Wait()
	if got := b.proxy.sockets[listenKey{TCP, web.Listen[0]}]; &got[0] != &sockets[0] {
		t.Error("the listeners of a service that stayed were opened again")
	}
	for _, c := range held {
		mustPing(t, c)
		c.Close()
	}
	b.ends("web", map[Reason]uint64{ClientClose: uint64(served.Load()) + uint64(len(held))})
}

// TestReloadBackends has new flows use the new backends, and old ones stay.
func TestReloadBackends(t *testing.T) {
	families(t, lab.VIP4, lab.VIP6, func(t *testing.T, ip string) {
		s := vip("web", 80)
		s.Backends = pool(ip, 80)
		b := newBed(t, s)
		b.server(80, echo)
		b.server(81, name("new"))
		old := b.dial(addrPort(ip, 80))
		mustPing(t, old)
		s.Backends = pool(ip, 81)
		b.apply(Config{Services: []Service{s}})
		if got, err := b.ask(addrPort(ip, 80)); got != "new" || err != nil {
			t.Errorf("a new flow has %q, %v", got, err)
		}
		mustPing(t, old)
		old.Close()
		b.ends("web", map[Reason]uint64{ClientClose: 1, UpstreamClose: 1})
	})
}

// TestReloadRemoves removes a service: its listener closes at once, its flows
// have the drain timeout. One that comes back in time keeps them.
func TestReloadRemoves(t *testing.T) {
	for _, back := range []bool{false, true} {
		families(t, lab.VIP4, lab.VIP6, func(t *testing.T, ip string) {
			c := Config{Services: []Service{vip("web", 80), vip("other", 81)}, DrainTimeout: 200 * time.Millisecond}
			b := newBedConfig(t, c)
			b.server(80, echo)
			b.server(81, echo)
			flow, other := b.dial(addrPort(ip, 80)), b.dial(addrPort(ip, 81))
			mustPing(t, flow)
			without := c
			without.Services = c.Services[1:]
			b.apply(without)
			if got := b.proxy.sockets[listenKey{TCP, addrPort(ip, 80)}]; got != nil {
				t.Error("the listener is still there")
			}
			mustPing(t, flow)
			if back {
				b.apply(c)
				time.Sleep(2 * c.DrainTimeout) //nolint:forbidigo // nothing happens, which is what is tested
				mustPing(t, flow)
				flow.Close()
				b.ends("web", map[Reason]uint64{ClientClose: 1})
			} else {
				wantRST(t, flow)
				b.ends("web", map[Reason]uint64{Drained: 1})
			}
			mustPing(t, other)
			other.Close()
			b.ends("other", map[Reason]uint64{ClientClose: 1})
		})
	}
}

// TestReloadMoves gives a listener to another service, and goes from one
// address to all of them and back.
func TestReloadMoves(t *testing.T) {
	one, all := vip("one", 80), vip("all", 80)
	two := vip("two", 80)
	two.Backends = bothPools(81)
	two.Listen = append(two.Listen, addrPort(lab.VIP4, 82))
	all.Listen = []netip.AddrPort{addrPort("0.0.0.0", 80), addrPort("::", 80)}
	all.Backends = bothPools(82)
	b := newBed(t, one)
	b.server(80, name("one"))
	b.server(81, name("two"))
	b.server(82, name("all"))
	for _, s := range []Service{two, one, all, two, all, one, two} {
		b.apply(Config{Services: []Service{s}})
		targets := []string{lab.VIP4, lab.VIP6}
		if s.Name == "all" {
			// A listener on all addresses takes those of the host.
			targets = []string{lab.ProxyClientIP4, lab.ProxyClientIP6}
		}
		for _, ip := range targets {
			if got, err := b.ask(addrPort(ip, 80)); got != s.Name || err != nil {
				t.Errorf("%s at %s: %q, %v", s.Name, ip, got, err)
			}
		}
	}
	b.ends("one", map[Reason]uint64{UpstreamClose: 4})
	b.ends("two", map[Reason]uint64{UpstreamClose: 6})
	b.ends("all", map[Reason]uint64{UpstreamClose: 4})
}

// TestApplyRefused has somebody else listen on the second of two new addresses.
// Nothing changes, and nothing is left open.
func TestApplyRefused(t *testing.T) {
	families(t, lab.VIP4, lab.VIP6, func(t *testing.T, ip string) {
		b := newBed(t, vip("web", 80))
		b.server(80, echo)
		// With SO_REUSEPORT, so that joining it would be possible.
		theirs, err := sys.ListenTCP(addrPort(ip, 82), 1, true)
		if err != nil {
			t.Fatal(err)
		}
		defer sys.Close(theirs)
		flow := b.dial(addrPort(ip, 80))
		mustPing(t, flow)
		before := descriptors(t)
		second := vip("second", 81)
		second.Listen = append(second.Listen, addrPort(ip, 82))
		for _, tt := range []struct {
			config Config
			want   []string
		}{
			{Config{Services: []Service{vip("web", 80), second}}, []string{`service "second"`, addrPort(ip, 82).String(), "bind"}},
			{Config{Services: []Service{vip("web", 80), vip("twice", 80), second}}, []string{`service "second"`}},
		} {
			err := b.proxy.Apply(tt.config)
			if !errors.Is(err, unix.EADDRINUSE) {
				t.Errorf("apply: %v, want EADDRINUSE", err)
				continue
			}
			for _, w := range tt.want {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("apply: %v, want %q in it", err, w)
				}
			}
		}
		looped := vip("web", 80)
		looped.Backends = append(looped.Backends, Backend{Name: "self", Addr: addrPort(ip, 80), Weight: 1})
		if err := b.proxy.Apply(Config{Services: []Service{looped}}); err == nil || !strings.Contains(err.Error(), "itself") {
			t.Errorf("backend that is the service: %v", err)
		}
		if n := openedSince(t, before); n != 0 {
			t.Errorf("%d descriptors more than before", n)
		}
		if all := b.proxy.Services(); len(all) != 1 || all[0].Name != "web" {
			t.Errorf("services %+v", all)
		}
		mustPing(t, flow)
		flow.Close()
		flow = b.dial(addrPort(ip, 80))
		mustPing(t, flow)
		flow.Close()
		b.ends("web", map[Reason]uint64{ClientClose: 2})
	})
}

// TestSecondInstance starts one more proxy on the same addresses.
func TestSecondInstance(t *testing.T) {
	b := newBed(t, vip("web", 80))
	b.server(80, echo)
	second, err := New(Options{Workers: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = second.Close() }()
	if err := second.Apply(Config{Services: []Service{vip("web", 80)}}); !errors.Is(err, unix.EADDRINUSE) {
		t.Errorf("second instance: %v, want EADDRINUSE", err)
	}
	for range 20 {
		c := b.dial(addrPort(lab.VIP4, 80))
		mustPing(t, c)
		c.Close()
	}
	b.ends("web", map[Reason]uint64{ClientClose: 20})
}

// TestDrain has flows end by themselves, be cut in time, and be cut at once.
func TestDrain(t *testing.T) {
	for _, tt := range []struct {
		name    string
		timeout time.Duration
		act     func(c *net.TCPConn, cancel context.CancelFunc)
		want    Reason
	}{
		{"ends", time.Minute, func(c *net.TCPConn, _ context.CancelFunc) { c.Close() }, ClientClose},
		{"timeout", 100 * time.Millisecond, func(*net.TCPConn, context.CancelFunc) {}, Drained},
		{"cancel", time.Minute, func(_ *net.TCPConn, cancel context.CancelFunc) { cancel() }, Drained},
	} {
		t.Run(tt.name, func(t *testing.T) {
			families(t, lab.VIP4, lab.VIP6, func(t *testing.T, ip string) {
				b := newBedConfig(t, Config{Services: []Service{vip("web", 80)}, DrainTimeout: tt.timeout, Records: true})
				b.server(80, echo)
				c := b.dial(addrPort(ip, 80))
				mustPing(t, c)
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				drained := make(chan struct{})
				go func() {
					defer close(drained)
					b.proxy.Drain(ctx)
				}()
				eventually(t, func() bool {
					c, err := b.tryDial(addrPort(ip, 80))
					if err == nil {
						c.Close() // it came in time
					}
					return err != nil
				}, "nobody is accepted any more")
				if tt.timeout == time.Minute {
					mustPing(t, c)
				}
				tt.act(c, cancel)
				<-drained
				if tt.want == Drained {
					wantRST(t, c)
				}
				if n := b.proxy.Active(); n != 0 {
					t.Errorf("%d flows after the drain", n)
				}
				if err := b.proxy.Apply(Config{}); !errors.Is(err, ErrDraining) {
					t.Errorf("apply after a drain: %v", err)
				}
				s := serviceStatsOf(t, b.proxy, "web")
				if n := s.total(func(sh *shard) uint64 { return sh.closed[tt.want].Load() }); n == 0 {
					t.Errorf("no flow ended for %v", tt.want)
				}
			})
		})
	}
}

// TestCloseCuts closes a proxy with live flows.
func TestCloseCuts(t *testing.T) {
	b := newBed(t, vip("web", 80))
	b.server(80, echo)
	var all []*net.TCPConn
	for _, ip := range []string{lab.VIP4, lab.VIP6} {
		for range 10 {
			c := b.dial(addrPort(ip, 80))
			mustPing(t, c)
			all = append(all, c)
		}
	}
	if err := b.proxy.Close(); err != nil {
		t.Error(err)
	}
	for _, c := range all {
		wantRST(t, c)
	}
	b.ends("web", map[Reason]uint64{Drained: 20})
	if n := len(b.records.wait(t, 20)); n != 20 {
		t.Errorf("%d records, want 20", n)
	}
	if err := b.proxy.Alive(patience); err == nil {
		t.Error("a closed proxy is alive")
	}
	if err := b.proxy.Close(); err != nil {
		t.Errorf("second close: %v", err)
	}
}

// TestQueueServed closes a listener with connections in its queue.
func TestQueueServed(t *testing.T) {
	families(t, lab.VIP4, lab.VIP6, func(t *testing.T, ip string) {
		c := Config{Services: []Service{vip("web", 80)}, MaxConnections: 1, DrainTimeout: time.Minute}
		b := newBedConfig(t, c)
		b.server(80, echo)
		served := b.queue(addrPort(ip, 80), 10)
		open := []*net.TCPConn{next(t, served)}
		c.Services = nil
		b.apply(c)
		for range 9 {
			open = append(open, next(t, served))
		}
		for _, c := range open {
			c.Close()
		}
		b.ends("web", map[Reason]uint64{ClientClose: 10})
	})
}

// TestAlive blocks a worker.
func TestAlive(t *testing.T) {
	p, err := New(Options{Workers: 2})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = p.Close() }()
	if err := p.Alive(patience); err != nil {
		t.Error(err)
	}
	release := make(chan struct{})
	p.workers[1].loop.Post(func() { <-release })
	if err := p.Alive(20 * time.Millisecond); err == nil || !strings.Contains(err.Error(), "1 of 2 workers") {
		t.Errorf("with a blocked worker: %v", err)
	}
	close(release)
	if err := p.Alive(patience); err != nil {
		t.Error(err)
	}
}
