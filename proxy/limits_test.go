package proxy

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/tproxyd/tproxyd/internal/lab"
	"github.com/tproxyd/tproxyd/internal/netnstest"
	"golang.org/x/sys/unix"
)

// waiter is a client that has connected and wants to be served.
type waiter struct {
	conn *net.TCPConn
	err  error
}

// queue connects n clients, and delivers each when it has had its answer.
func (b *bed) queue(to netip.AddrPort, n int) <-chan waiter {
	b.t.Helper()
	served := make(chan waiter, n)
	for range n {
		c := b.dial(to)
		go func() { served <- waiter{c, ping(c)} }()
	}
	return served
}

// next returns a client that is served.
func next(t *testing.T, served <-chan waiter) *net.TCPConn {
	t.Helper()
	w := <-served
	if w.err != nil {
		t.Fatal(w.err)
	}
	return w.conn
}

func (b *bed) pauses(why pause) (n uint64) {
	for _, w := range b.proxy.workers {
		n += w.stats.pauses[why].Load()
	}
	return n
}

// TestMaxConnections has more clients than the process, or the service, may
// have flows. The others wait until one ends, of whatever worker.
func TestMaxConnections(t *testing.T) {
	const limit, clients = 4, 14
	for _, why := range []pause{pauseConnections, pauseService} {
		t.Run(pauseNames[why], func(t *testing.T) {
			families(t, lab.VIP4, lab.VIP6, func(t *testing.T, ip string) {
				c := Config{Services: []Service{vip("web", 80)}, Records: true}
				if why == pauseConnections {
					c.MaxConnections = limit
				} else {
					c.Services[0].MaxConnections = limit
				}
				b := newBedConfig(t, c)
				b.server(80, echo)
				served := b.queue(addrPort(ip, 80), clients)
				var open []*net.TCPConn
				for range limit {
					open = append(open, next(t, served))
				}
				eventually(t, func() bool { return b.pauses(why) > 0 }, "accepting pauses")
				for range clients - limit {
					if n := b.proxy.Active(); n > limit {
						t.Errorf("%d flows, the limit is %d", n, limit)
					}
					open[0].Close()
					open = append(open[1:], next(t, served))
				}
				for _, c := range open {
					c.Close()
				}
				b.ends("web", map[Reason]uint64{ClientClose: clients})
				eventually(t, func() bool {
					for _, w := range b.proxy.Workers() {
						if w.Paused {
							return false
						}
					}
					return true
				}, "accepting goes on")
			})
		})
	}
}

// TestLimitOfOneService lets another service go on.
func TestLimitOfOneService(t *testing.T) {
	full, other := vip("full", 80), vip("other", 81)
	full.MaxConnections = 2
	b := newBed(t, full, other)
	b.server(80, echo)
	b.server(81, echo)
	served := b.queue(addrPort(lab.VIP4, 80), 6)
	open := []*net.TCPConn{next(t, served), next(t, served)}
	eventually(t, func() bool { return b.pauses(pauseService) > 0 }, "accepting pauses")
	for range 20 {
		c := b.dial(addrPort(lab.VIP4, 81))
		mustPing(t, c)
		c.Close()
	}
	if n := b.proxy.Services()[0].Active; n != 2 {
		t.Errorf("%d flows of the full service, want 2", n)
	}
	for range 4 {
		open[0].Close()
		open = append(open[1:], next(t, served))
	}
	for _, c := range open {
		c.Close()
	}
	b.ends("full", map[Reason]uint64{ClientClose: 6})
	b.ends("other", map[Reason]uint64{ClientClose: 20})
}

// TestLimitRaised has a reload set the waiting free.
func TestLimitRaised(t *testing.T) {
	c := Config{Services: []Service{vip("web", 80)}, MaxConnections: 1}
	b := newBedConfig(t, c)
	b.server(80, echo)
	served := b.queue(addrPort(lab.VIP4, 80), 5)
	open := []*net.TCPConn{next(t, served)}
	c.MaxConnections = 5
	if err := b.proxy.Apply(c); err != nil {
		t.Fatal(err)
	}
	for range 4 {
		open = append(open, next(t, served))
	}
	c.MaxConnections = 2 // less than there are: none is cut
	if err := b.proxy.Apply(c); err != nil {
		t.Fatal(err)
	}
	for _, c := range open {
		mustPing(t, c)
		c.Close()
	}
	b.ends("web", map[Reason]uint64{ClientClose: 5})
}

// labBed is a lab with a server that echoes on childPort, without a proxy.
func labBed(t *testing.T) *bed {
	t.Helper()
	b := &bed{Lab: netnstest.New(t), t: t}
	b.server(childPort, echo)
	b.divert()
	return b
}

// TestDescriptorsRunOut has 300 clients and a limit of 200 descriptors.
func TestDescriptorsRunOut(t *testing.T) {
	families(t, lab.VIP4, lab.VIP6, func(t *testing.T, ip string) {
		const clients = 300
		b := labBed(t)
		p := startChild(t, b.Proxy, childOrder{Role: "proxy", IP: ip, Limit: 200})
		limit := int(p.do("state").Limit)
		if limit < 85 || limit > 95 {
			t.Fatalf("%d connections possible with 200 descriptors, want 85 to 95", limit)
		}
		served := b.queue(addrPort(ip, childPort), clients)
		var open []*net.TCPConn
		for range limit {
			open = append(open, next(t, served))
		}
		before := p.do("state")
		if before.Active != int64(limit) || before.Pauses["max_connections"] == 0 || before.Metrics == 0 {
			t.Errorf("at the limit of %d: %+v", limit, before)
		}
		for _, c := range open {
			mustPing(t, c)
		}
		wantLazy(t, p)
		for range clients - limit {
			open[0].Close()
			open = append(open[1:], next(t, served))
		}
		for _, c := range open {
			c.Close()
		}
		eventually(t, func() bool { return p.do("state").Active == 0 }, "all flows have ended")
		after := p.do("state")
		if after.Accepted != clients || after.Closed["client_close"] != clients || after.Pauses["descriptors"] != 0 {
			t.Errorf("after %d clients: %+v", clients, after)
		}
	})
}

// wantLazy wants the child to use next to no CPU for a while, as one that spins
// would. Other load on the machine can only lower what it uses.
func wantLazy(t *testing.T, p *child) {
	t.Helper()
	const while = 300 * time.Millisecond
	before := p.do("state")
	time.Sleep(while) //nolint:forbidigo // the idleness is what is tested
	if used := p.do("state").CPU - before.CPU; used > while/3 {
		t.Errorf("%v of CPU in %v with nothing to do", used, while)
	}
}

// TestNoDescriptors takes all descriptors away from a proxy that has no flow.
func TestNoDescriptors(t *testing.T) {
	b := labBed(t)
	p := startChild(t, b.Proxy, childOrder{Role: "proxy", IP: lab.VIP4, Limit: 100})
	p.do("fill 0")
	served := b.queue(addrPort(lab.VIP4, childPort), 10)
	eventually(t, func() bool { return p.do("state").Pauses["descriptors"] > 0 }, "accept fails")
	wantLazy(t, p)
	s := p.do("state")
	if s.Accepted != 0 || s.Metrics == 0 {
		t.Errorf("without a descriptor: %+v", s)
	}
	p.do("free")
	for range 10 {
		next(t, served).Close()
	}
	eventually(t, func() bool { return p.do("state").Active == 0 }, "all flows have ended")
	// With one for the client and none for the upstream.
	p.do("fill 1")
	b.wantRefused(addrPort(lab.VIP4, childPort))
	eventually(t, func() bool { return p.do("state").Closed["resources_exhausted"] > 0 }, "the flow is refused")
	p.do("free")
	c := b.dial(addrPort(lab.VIP4, childPort))
	mustPing(t, c)
	c.Close()
	eventually(t, func() bool { return p.do("state").Active == 0 }, "all flows have ended")
	if s := p.do("state"); s.Closed["client_close"] != 11 || s.Closed["resources_exhausted"] != uint64(s.Accepted)-11 {
		t.Errorf("at the end: %+v", s)
	}
}

// TestManyConnections holds as many as the descriptor limit allows, up to 9,000.
func TestManyConnections(t *testing.T) {
	families(t, lab.VIP4, lab.VIP6, func(t *testing.T, ip string) {
		var l unix.Rlimit
		if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &l); err != nil {
			t.Fatal(err)
		}
		n := int(min(9000, (l.Max-l.Max/20-200)/2))
		if ip == lab.VIP6 {
			n /= 4
		}
		b := &bed{Lab: netnstest.New(t), t: t}
		b.divert()
		startChild(t, b.Server, childOrder{Role: "server"})
		p := startChild(t, b.Proxy, childOrder{Role: "proxy", IP: ip})
		before := p.do("state")
		clients := startChild(t, b.Client, childOrder{Role: "clients", IP: ip, N: n})
		if got := clients.do("ping").Done; got != n {
			t.Errorf("%d of %d served", got, n)
		}
		s := p.do("state")
		t.Logf("%d connections: %d descriptors, %d bytes of memory each", s.Active, s.Descriptors, (s.RSS-before.RSS)/int64(n))
		if s.Active != int64(n) || s.Descriptors > 2*n+200 {
			t.Errorf("%d of %d flows, %d descriptors", s.Active, n, s.Descriptors)
		}
		if each := (s.RSS - before.RSS) / int64(n); each > 40<<10 {
			t.Errorf("%d bytes of memory for each flow", each)
		}
		clients.stop()
		eventually(t, func() bool { return p.do("state").Active == 0 }, "all flows have ended")
		if s := p.do("state"); s.Descriptors > before.Descriptors+4*idlePipes {
			t.Errorf("%d descriptors after the flows, %d before", s.Descriptors, before.Descriptors)
		}
	})
}

// TestLimits looks at what is derived from the descriptor limit.
func TestLimits(t *testing.T) {
	p, err := New(Options{Workers: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = p.Close() }()
	if err := p.Apply(Config{MaxConnections: 3}); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		configured int
		want       func(n int64) bool
	}{
		{0, func(n int64) bool { return n > 3 }},
		{7, func(n int64) bool { return n == 7 }},
		{1 << 30, func(n int64) bool { return n < int64(p.Limits().Descriptors)/2 }},
	} {
		if err := p.Apply(Config{MaxConnections: tt.configured}); err != nil {
			t.Fatal(err)
		}
		if n := p.Limits().MaxConnections; !tt.want(n) {
			t.Errorf("max_connections = %d: %d in force", tt.configured, n)
		}
	}
	pipes := 0
	for _, w := range p.workers {
		pipes += w.pipes.max
	}
	if pipes != p.Limits().MaxPipes {
		t.Errorf("%d pipes for the workers, %d in all", pipes, p.Limits().MaxPipes)
	}
}
