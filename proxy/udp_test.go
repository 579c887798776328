package proxy

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/tproxyd/tproxyd/internal/lab"
)

// TestUDPVIP has clients of both families reach a backend that sees their own
// address and port.
func TestUDPVIP(t *testing.T) {
	families(t, lab.VIP4, lab.VIP6, func(t *testing.T, ip string) {
		b := newBed(t, udpVIP("dns", 53))
		b.datagramServer(whoami)
		c := b.talk(addrPort(ip, 53))
		for range 3 {
			if got := string(ask(t, c, []byte("who am I?"))); got != c.LocalAddr().String() {
				t.Fatalf("the backend saw %s, the client is %s", got, c.LocalAddr())
			}
		}
		b.wantUDP("dns", func(n udpCounts) bool {
			return n.flows == 1 && n.active == 1 && n.in == 3 && n.out == 3 && n.dropped == 0
		})
	})
}

// TestUDPIntercept has datagrams to anyone reach them, and the replies come
// from where the client sent to.
func TestUDPIntercept(t *testing.T) {
	families(t, lab.ForeignIP4, lab.ForeignIP6, func(t *testing.T, ip string) {
		b := newBed(t, udpIntercept())
		for _, port := range []int{53, 4433} {
			b.datagramServerOn(ip, port, whoami)
			c := b.talk(addrPort(ip, port))
			for range 3 {
				if got := string(ask(t, c, []byte("who am I?"))); got != c.LocalAddr().String() {
					t.Fatalf("the server saw %s, the client is %s", got, c.LocalAddr())
				}
			}
		}
		b.wantUDP("any-udp", func(n udpCounts) bool { return n.flows == 2 && n.in == 6 && n.out == 6 && n.dropped == 0 })
	})
}

// TestUDPSizes has datagrams of all sizes pass whole, in both directions.
func TestUDPSizes(t *testing.T) {
	for _, s := range []Service{udpVIP("any-udp", 53), udpIntercept()} {
		v4, v6 := lab.VIP4, lab.VIP6
		if s.Mode == Intercept {
			v4, v6 = lab.ForeignIP4, lab.ForeignIP6
		}
		t.Run(s.Mode.String(), func(t *testing.T) {
			families(t, v4, v6, func(t *testing.T, ip string) {
				b := newBed(t, s)
				if s.Mode == Intercept {
					b.datagramServerOn(ip, 53, mirror)
				} else {
					b.datagramServer(mirror)
				}
				c := b.talk(addrPort(ip, 53))
				for _, n := range []int{0, 1, 1200, 1232, 1233, 1452, 1472, 1473, 4000, 9000, 65507} {
					data := noiseAt(n, 0)
					for len(data) < n {
						data = append(data, data...)
					}
					if got := ask(t, c, data[:n]); !bytes.Equal(got, data[:n]) {
						t.Fatalf("%d bytes came back as %d", n, len(got))
					}
				}
				b.wantUDP("any-udp", func(n udpCounts) bool { return n.flows == 1 && n.dropped == 0 })
			})
		})
	}
}

// TestUDPFlows has many flows at once, each with its own backend socket.
func TestUDPFlows(t *testing.T) {
	families(t, lab.VIP4, lab.VIP6, func(t *testing.T, ip string) {
		b := newBed(t, udpVIP("dns", 53))
		b.datagramServer(whoami)
		for i := range 50 {
			c := b.talk(addrPort(ip, 53))
			for range 2 {
				if got := string(ask(t, c, fmt.Append(nil, i))); got != c.LocalAddr().String() {
					t.Fatalf("the backend saw %s, the client is %s", got, c.LocalAddr())
				}
			}
		}
		b.wantUDP("dns", func(n udpCounts) bool { return n.flows == 50 && n.active == 50 && n.dropped == 0 })
	})
}
