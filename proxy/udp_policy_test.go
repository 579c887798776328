package proxy

import (
	"bytes"
	"net"
	"net/netip"
	"testing"

	"github.com/tproxyd/tproxyd/internal/lab"
)

// TestUDPSources checks what the backend sees under each policy.
func TestUDPSources(t *testing.T) {
	families(t, lab.VIP4, lab.VIP6, func(t *testing.T, ip string) {
		var services []Service
		for i, policy := range []Source{Client, ClientIP, PreferClient, Host} {
			s := udpVIP(policy.String(), 5300+i)
			s.Source = policy
			s.Backends = udpVIP("", 53).Backends
			services = append(services, s)
		}
		b := newBed(t, services...)
		b.datagramServer(whoami)
		for i, s := range services {
			c := b.talk(addrPort(ip, 5300+i))
			saw := netip.MustParseAddrPort(string(ask(t, c, []byte("?"))))
			me := c.LocalAddr().(*net.UDPAddr).AddrPort()
			switch s.Source {
			case Client, PreferClient:
				if saw != me {
					t.Errorf("%v: the backend saw %v, the client is %v", s.Source, saw, me)
				}
			case ClientIP:
				if saw.Addr() != me.Addr() {
					t.Errorf("%v: the backend saw %v, the client is %v", s.Source, saw, me)
				}
			case Host:
				// Of any family, as the backend is.
				if a := saw.Addr().String(); a != lab.ProxyServerIP4 && a != lab.ProxyServerIP6 {
					t.Errorf("%v: the backend saw %v, the proxy is %s or %s", s.Source, saw, lab.ProxyServerIP4, lab.ProxyServerIP6)
				}
			}
		}
	})
}

// TestUDPConflict has one client port speak to two virtual IPs with the same
// backend: towards that, the 4-tuple is taken.
func TestUDPConflict(t *testing.T) {
	families(t, lab.VIP4, lab.VIP6, func(t *testing.T, ip string) {
		for _, policy := range []Source{Client, PreferClient} {
			t.Run(policy.String(), func(t *testing.T) {
				one, two := udpVIP("one", 5301), udpVIP("two", 5302)
				two.Source = policy
				one.Backends, two.Backends = udpVIP("", 53).Backends, udpVIP("", 53).Backends
				b := newBed(t, one, two)
				b.datagramServer(whoami)
				// The client's socket speaks to anybody.
				pc := b.packetSocket(b.Client, addrPort(clientIP(ip), 0))
				me := pc.LocalAddr().String()
				exchange := func(port int) string {
					t.Helper()
					to := net.UDPAddrFromAddrPort(addrPort(ip, port))
					if _, err := pc.WriteTo([]byte("?"), to); err != nil {
						t.Fatal(err)
					}
					return string(receive(t, pc))
				}
				if saw := exchange(5301); saw != me {
					t.Errorf("the backend saw %s, the client is %s", saw, me)
				}
				if policy == PreferClient {
					saw := netip.MustParseAddrPort(exchange(5302))
					if want := netip.MustParseAddrPort(me); saw.Addr() != want.Addr() || saw.Port() == want.Port() {
						t.Errorf("the backend saw %v, want %v with another port", saw, want)
					}
				} else {
					if _, err := pc.WriteTo([]byte("?"), net.UDPAddrFromAddrPort(addrPort(ip, 5302))); err != nil {
						t.Fatal(err)
					}
					b.wantDrop("two", dropConflict)
				}
				// The first flow still has its socket.
				if saw := exchange(5301); saw != me {
					t.Errorf("then the backend saw %s, the client is %s", saw, me)
				}
				s := serviceStatsOf(t, b.proxy, "two")
				if n := s.total(func(sh *shard) uint64 { return sh.conflicts.Load() }); n != 1 {
					t.Errorf("%d conflicts counted, want 1", n)
				}
			})
		}
	})
}

// TestUDPForeignReplyAddress intercepts datagrams to a port that a program on
// the proxy's own host has on all addresses, and shares with nobody.
func TestUDPForeignReplyAddress(t *testing.T) {
	families(t, lab.ForeignIP4, lab.ForeignIP6, func(t *testing.T, ip string) {
		own, wild := lab.ProxyClientIP4, "0.0.0.0"
		if ip == lab.ForeignIP6 {
			own, wild = lab.ProxyClientIP6, "::"
		}
		b := newBed(t, udpIntercept())
		resolver := b.packetSocket(b.Proxy, addrPort(wild, 53))
		b.datagramServerOn(ip, 53, mirror)
		c := b.talk(addrPort(ip, 53))
		for _, n := range []int{0, 1, 500, 1472, 5000} {
			data := bytes.Repeat([]byte{byte(n)}, n)
			if got := ask(t, c, data); !bytes.Equal(got, data) {
				t.Errorf("%d bytes came back as %d", n, len(got))
			}
		}
		b.wantUDP("any-udp", func(n udpCounts) bool { return n.flows == 1 && n.in == 5 && n.out == 5 && n.dropped == 0 })
		// The program still gets what is for it.
		local := b.talk(addrPort(own, 53))
		if _, err := local.Write([]byte("for the resolver")); err != nil {
			t.Fatal(err)
		}
		if got := string(receive(t, resolver)); got != "for the resolver" {
			t.Errorf("the resolver got %q", got)
		}
	})
}

// TestUDPAddressTaken starts a service on an address that another socket has,
// whether that shares it or not.
func TestUDPAddressTaken(t *testing.T) {
	b := newBed(t)
	taken := b.packetSocket(b.Proxy, addrPort("0.0.0.0", 53))
	if err := b.proxy.Apply(Config{Services: []Service{udpVIP("dns", 53)}}); err == nil {
		t.Error("the address of another program was taken")
	}
	if err := taken.Close(); err != nil {
		t.Fatal(err)
	}
	b.apply(Config{Services: []Service{udpVIP("dns", 53)}})
}

// TestUDPAndTCP has both protocols on one address and port.
func TestUDPAndTCP(t *testing.T) {
	b := newBed(t, udpVIP("dns", 53), vip("dns-tcp", 53))
	b.datagramServer(mirror)
	b.server(53, echo)
	for _, ip := range []string{lab.VIP4, lab.VIP6} {
		if got := string(ask(t, b.talk(addrPort(ip, 53)), []byte("udp"))); got != "udp" {
			t.Errorf("got %q", got)
		}
		c := b.dial(addrPort(ip, 53))
		mustPing(t, c)
		c.Close()
	}
}

// TestUDPLocalOutput intercepts a client on the proxy's own host. Its address and
// port are not to be had.
func TestUDPLocalOutput(t *testing.T) {
	families(t, lab.ForeignIP4, lab.ForeignIP6, func(t *testing.T, ip string) {
		for _, policy := range []Source{Client, PreferClient, ClientIP, Host} {
			t.Run(policy.String(), func(t *testing.T) {
				s := udpIntercept()
				s.Source = policy
				b := localOutputOf(t, s, exempt)
				b.datagramServerOn(ip, 53, mirror)
				b.fromProxy(func() {
					c := b.talk(addrPort(ip, 53))
					if policy != Client {
						if got := string(ask(t, c, []byte("from the host"))); got != "from the host" {
							t.Errorf("got %q", got)
						}
						return
					}
					if _, err := c.Write([]byte("from the host")); err != nil {
						t.Fatal(err)
					}
				})
				if policy == Client {
					b.wantDrop("any-udp", dropConflict)
				}
			})
		}
	})
}

// TestUDPLoop has a rule that brings the proxy's own datagrams back to it.
func TestUDPLoop(t *testing.T) {
	families(t, lab.ForeignIP4, lab.ForeignIP6, func(t *testing.T, ip string) {
		for _, policy := range []Source{Client, PreferClient, ClientIP, Host} {
			t.Run(policy.String(), func(t *testing.T) {
				s := udpIntercept()
				s.Source = policy
				b := localOutputOf(t, s, 0)
				c := b.talk(addrPort(ip, 53))
				if _, err := c.Write([]byte("round and round")); err != nil {
					t.Fatal(err)
				}
				b.wantDrop("any-udp", dropLoop)
				if n := b.udpCounts("any-udp"); n.in > 1 {
					t.Errorf("%d datagrams were passed on", n.in)
				}
			})
		}
	})
}
