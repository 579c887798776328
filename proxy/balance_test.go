package proxy

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/tproxyd/tproxyd/internal/balance"
	"github.com/tproxyd/tproxyd/internal/lab"
)

// names makes a TCP server of each port that answers with its name and holds
// the connection.
func (b *bed) names(ports ...int) {
	for _, port := range ports {
		b.server(port, func(c *net.TCPConn) {
			_, _ = fmt.Fprintf(c, "b%d", port)
			_, _ = io.Copy(io.Discard, c)
		})
	}
}

// whose opens a connection and returns the name of the backend it got.
func (b *bed) whose(to netip.AddrPort) (string, *net.TCPConn) {
	b.t.Helper()
	c := b.dial(to)
	name := make([]byte, 3)
	if _, err := io.ReadFull(c, name); err != nil {
		b.t.Fatal(err)
	}
	return string(name), c
}

// balanced returns a TCP service over three ports of the server.
func balanced(algorithm balance.Algorithm, weights ...int) Service {
	s := vip("web", 80)
	s.Listen = s.Listen[:1]
	s.Balance, s.Backends = algorithm, pool(lab.VIP4, 81, 82, 83)
	for i, w := range weights {
		s.Backends[i].Weight = w
	}
	return s
}

// TestWeights gives flows to backends by weight.
func TestWeights(t *testing.T) {
	for _, algorithm := range []balance.Algorithm{balance.RoundRobin, balance.LeastConn, balance.RandomTwo, balance.Maglev} {
		t.Run(algorithm.String(), func(t *testing.T) {
			b := newBedWorkers(t, 1, Config{Services: []Service{balanced(algorithm, 3, 1, 0)}})
			b.names(81, 82, 83)
			got := map[string]int{}
			for range 80 {
				name, _ := b.whose(addrPort(lab.VIP4, 80))
				got[name]++
			}
			exact := algorithm == balance.RoundRobin || algorithm == balance.LeastConn
			if got["b83"] != 0 || got["b82"] == 0 || got["b81"] <= got["b82"] || exact && (got["b81"] != 60 || got["b82"] != 20) {
				t.Errorf("flows by backend %v, the weights are 3, 1 and 0", got)
			}
		})
	}
}

// TestLeastConn gives flows to the backend that has fewest now, whichever
// worker they are of.
func TestLeastConn(t *testing.T) {
	b := newBed(t, balanced(balance.LeastConn))
	b.names(81, 82, 83)
	held := map[string][]*net.TCPConn{}
	for range 30 {
		name, c := b.whose(addrPort(lab.VIP4, 80))
		held[name] = append(held[name], c)
	}
	for name, conns := range held {
		if len(conns) != 10 {
			t.Errorf("%s has %d flows of 30", name, len(conns))
		}
	}
	// A reload that changes nothing of the backends keeps the counts.
	s := balanced(balance.LeastConn)
	s.Retries = 2
	b.apply(Config{Services: []Service{s}})
	for _, c := range held["b82"] {
		c.Close()
	}
	eventually(t, func() bool { return b.backendActive("web", "b82") == 0 }, "the flows of b82 have ended")
	for range 10 {
		if name, _ := b.whose(addrPort(lab.VIP4, 80)); name != "b82" {
			t.Errorf("a flow went to %s, want b82, which has none", name)
		}
	}
}

// TestAffinity gives all flows of a client to one backend, with the proxy that
// has it and with another one that was told of the backends in another order.
func TestAffinity(t *testing.T) {
	for _, algorithm := range []balance.Algorithm{balance.SourceHash, balance.Maglev} {
		t.Run(algorithm.String(), func(t *testing.T) {
			s := balanced(algorithm)
			s.Hash, s.Seed = balance.ClientIP, 7
			b := newBed(t, s)
			b.names(81, 82, 83)
			choice := map[string]string{}
			for round := range 2 {
				for i := range 20 {
					client := fmt.Sprintf("198.18.16.%d", i+1)
					for range 3 {
						c, err := b.Client.DialFrom(t.Context(), "tcp", net.JoinHostPort(client, "0"), addrPort(lab.VIP4, 80).String())
						if err != nil {
							t.Fatal(err)
						}
						name := make([]byte, 3)
						if _, err := io.ReadFull(c, name); err != nil {
							t.Fatal(err)
						}
						c.Close()
						if was := choice[client]; was != "" && was != string(name) {
							t.Errorf("round %d: %s went to %s, then to %s", round, client, was, name)
						}
						choice[client] = string(name)
					}
				}
				s.Backends = slices.Clone(s.Backends)
				s.Backends[0], s.Backends[2] = s.Backends[2], s.Backends[0]
				b.apply(Config{Services: []Service{s}})
			}
			seen := map[string]bool{}
			for _, name := range choice {
				seen[name] = true
			}
			if len(seen) != 3 {
				t.Errorf("20 clients went to %d backends of 3", len(seen))
			}
		})
	}
}

// TestBackup uses a backup when no other backend can be connected to.
func TestBackup(t *testing.T) {
	s := balanced(balance.First)
	s.Backends[2].Backup = true
	s.Retries = 2
	b := newBed(t, s)
	b.names(83)
	for range 4 {
		if name, _ := b.whose(addrPort(lab.VIP4, 80)); name != "b83" {
			t.Errorf("a flow went to %s, want the backup", name)
		}
	}
	b.names(82)
	for range 4 {
		if name, _ := b.whose(addrPort(lab.VIP4, 80)); name != "b82" {
			t.Errorf("a flow went to %s, want the second, as the first is closed", name)
		}
	}
}

// TestUDPBalance has UDP flows follow the weights, and a change of weight leave
// them where they are.
func TestUDPBalance(t *testing.T) {
	s := udpVIP("dns", 53)
	s.Listen = s.Listen[:1]
	s.Backends = []Backend{{Name: "one", Addr: addrPort(lab.ServerIP4, 53), Weight: 2}, {Name: "two", Addr: addrPort(lab.ServerIP4, 54), Weight: 1}}
	b := newBedWorkers(t, 1, Config{Services: []Service{s}})
	for _, port := range []int{53, 54} {
		b.datagramServerOn(lab.ServerIP4, port, func([]byte, netip.AddrPort) [][]byte { return [][]byte{{byte(port)}} })
	}
	got := map[byte]int{}
	conns := map[*net.UDPConn]byte{}
	for range 30 {
		c := b.talk(addrPort(lab.VIP4, 53))
		port := ask(t, c, []byte("?"))[0]
		got[port]++
		conns[c] = port
	}
	if got[53] != 20 || got[54] != 10 {
		t.Errorf("flows by port %v, the weights are 2 and 1", got)
	}
	s.Backends = []Backend{{Name: "two", Addr: addrPort(lab.ServerIP4, 54), Weight: 0}, {Name: "one", Addr: addrPort(lab.ServerIP4, 53), Weight: 5}}
	b.apply(Config{Services: []Service{s}})
	for c, port := range conns {
		if now := ask(t, c, []byte("?"))[0]; now != port {
			t.Errorf("a flow to port %d goes to %d", port, now)
		}
	}
	if n := b.backendActive("dns", "two"); n != 10 {
		t.Errorf("%d flows of two, want 10", n)
	}
	if port := ask(t, b.talk(addrPort(lab.VIP4, 53)), []byte("?"))[0]; port != 53 {
		t.Error("a new flow went to a backend of weight 0")
	}
}

// TestBadBalance refuses what cannot be, and goes on.
func TestBadBalance(t *testing.T) {
	good := balanced(balance.Maglev)
	b := newBed(t, good)
	b.names(81, 82, 83)
	bad := balanced(balance.Maglev)
	bad.TableSize = 100
	if err := b.proxy.Apply(Config{Services: []Service{bad}}); err == nil || !strings.Contains(err.Error(), "prime") {
		t.Errorf("a table of 100: %v", err)
	}
	b.whose(addrPort(lab.VIP4, 80))
	const want = `
# HELP tproxyd_backend_weight Weight of a backend among those of its pool, 0 to 256, as configured or set at run time.
# TYPE tproxyd_backend_weight gauge
tproxyd_backend_weight{backend="b81",service="web"} 1
tproxyd_backend_weight{backend="b82",service="web"} 1
tproxyd_backend_weight{backend="b83",service="web"} 1
`
	if err := testutil.CollectAndCompare(NewCollector(b.proxy), strings.NewReader(want), metricBackendWeight); err != nil {
		t.Error(err)
	}
}
