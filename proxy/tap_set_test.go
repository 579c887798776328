package proxy

import (
	"net"
	"sync"
	"testing"

	"github.com/tproxyd/tproxyd/internal/lab"
)

// TestSetTap has a new tap told of the flows that there are, whose sources
// nobody has asked for yet, and the old one of nothing more.
func TestSetTap(t *testing.T) {
	web, dns := vip("web", 80), udpVIP("dns", 53)
	web.Source, dns.Source = Host, Host
	hole := vip("hole", 90)
	b := newBedConfig(t, Config{Services: []Service{web, dns, hole}})
	b.swallow("90")
	seen := make(chan seenLeg, 1)
	b.server(80, func(c *net.TCPConn) {
		seen <- seenLeg{unmapped(c.RemoteAddr()), unmapped(c.LocalAddr())}
		echo(c)
	})
	b.datagramServer(whoami)
	c, u := b.dial(addrPort(lab.VIP4, 80)), b.talk(addrPort(lab.VIP4, 53))
	mustPing(t, c)
	tcpSource, udpSource := (<-seen).remote, string(ask(t, u, []byte("?")))
	connects := b.dial(addrPort(lab.VIP4, 90))
	eventually(t, func() bool { return b.proxy.Active() == 3 }, "all flows are there")
	tcp, udp := unmapped(c.LocalAddr()), udpAddr(u.LocalAddr())

	var taps []*tapKeeper
	for range 3 {
		k := newTapKeeper()
		b.proxy.SetTap(k)
		taps = append(taps, k)
		k.mu.Lock()
		n := len(k.calls)
		k.mu.Unlock()
		if n != 3 {
			t.Fatalf("SetTap returns with %d flows told, want 3", n)
		}
		for _, calls := range k.calls {
			if len(calls) != 2 || calls[0].method != "Opened" || calls[1].method[:8] != "Dialing " {
				t.Errorf("told %v", calls)
			}
			switch f := calls[1]; f.Client {
			case tcp:
				if f.UpstreamSource != tcpSource {
					t.Errorf("source %v, want %v", f.UpstreamSource, tcpSource)
				}
			case udp:
				if f.UpstreamSource.String() != udpSource {
					t.Errorf("source %v, want %v", f.UpstreamSource, udpSource)
				}
			default:
				if f.Client != unmapped(connects.LocalAddr()) || f.UpstreamSource != f.Client {
					t.Errorf("told of %+v", f.TapFlow)
				}
			}
		}
		b.proxy.SetTap(nil)
	}
	last := newTapKeeper()
	b.proxy.SetTap(last)
	mustPing(t, c)
	c.Close()
	for _, k := range taps {
		k.wantBalance(t, true)
		if len(k.calls) != 3 {
			t.Error("a tap that is gone was called")
		}
	}
	eventually(t, func() bool { return b.proxy.Connections() == 1 }, "the flow ends")
	if err := b.proxy.Close(); err != nil {
		t.Error(err)
	}
	last.wantBalance(t, false)
}

// TestSetTapUnderTraffic changes taps while flows come and go.
func TestSetTapUnderTraffic(t *testing.T) {
	web, dns := triedInTurn(81, 82), udpVIP("dns", 53)
	dns.Responses = 1
	b := newBedConfig(t, Config{Services: []Service{web, dns}})
	b.server(82, echo)
	b.datagramServer(mirror)
	stop := make(chan struct{})
	var traffic sync.WaitGroup
	for range 2 {
		traffic.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if c, err := b.tryDial(addrPort(lab.VIP4, 80)); err != nil {
					t.Error(err)
				} else {
					if err := ping(c); err != nil {
						t.Error(err)
					}
					c.Close()
				}
				if u, err := b.Client.Dial(t.Context(), "udp", addrPort(lab.VIP4, 53).String()); err != nil {
					t.Error(err)
				} else {
					_ = ping(u)
					u.Close()
				}
			}
		})
	}
	var last *tapKeeper
	for i := range 60 {
		k := newTapKeeper()
		b.proxy.SetTap(k)
		if i%10 == 9 {
			eventually(t, func() bool {
				k.mu.Lock()
				defer k.mu.Unlock()
				return len(k.calls) >= 20
			}, "flows come and go")
		}
		if last = k; i < 59 {
			if i%2 == 0 {
				b.proxy.SetTap(nil)
			} else {
				b.proxy.SetTap(newTapKeeper())
			}
			k.wantBalance(t, true)
		}
	}
	close(stop)
	traffic.Wait()
	if err := b.proxy.Close(); err != nil {
		t.Error(err)
	}
	last.wantBalance(t, false)
}
