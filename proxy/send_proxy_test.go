package proxy

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"testing"

	"github.com/tproxyd/tproxyd/internal/lab"
	"github.com/tproxyd/tproxyd/internal/proxyproto"
)

// parsed is what a backend has got.
type parsed struct {
	header proxyproto.Header
	id     string
	name   string
	rest   []byte
}

// headerServer takes a header off each connection and delivers that and all
// that follows it; then the connection ends.
func (b *bed) headerServer(port int, got chan<- parsed) {
	b.server(port, func(c *net.TCPConn) {
		all, _ := io.ReadAll(c)
		h, n, err := proxyproto.Parse(all)
		if err != nil {
			b.t.Errorf("a backend got %q: %v", all, err)
		}
		got <- parsed{h, string(h.UniqueID), string(h.Authority), all[n:]}
	})
}

// TestSendProxy gives backends a header, once and before what the client says,
// also after a backend that refuses.
func TestSendProxy(t *testing.T) {
	families(t, lab.VIP4, lab.VIP6, func(t *testing.T, ip string) {
		var services []Service
		for i := range 4 {
			s := headered(fmt.Sprint("s", i), 80+i)
			s.SendProxy = 1 + i%2
			if i < 2 {
				s.AcceptProxy = ProxyOff
			}
			s.Backends = pool(ip, 90, 99) // nobody is at 90
			services = append(services, s)
		}
		b := newBed(t, services...)
		got := make(chan parsed, 1)
		b.headerServer(99, got)
		retried := 0
		for n := range 16 {
			s := services[n%4]
			c := b.dial(addrPort(ip, 80+n%4))
			from, to := netip.MustParseAddrPort(c.LocalAddr().String()), addrPort(ip, 80+n%4)
			data := []byte("what the client says")
			if s.AcceptProxy == ProxyRequire {
				from, to = named(ip, 5000+n), netip.AddrPortFrom(named(ip, 1).Addr(), 443)
				data = append(proxyHeader(2-n/4%2, from, to), data...)
			}
			if n < 8 { // otherwise nothing is there when the backend is
				if err := together(c, data); err != nil {
					t.Fatal(err)
				}
			} else if err := bytewise(c, data); err != nil {
				t.Fatal(err)
			}
			if err := c.CloseWrite(); err != nil {
				t.Fatal(err)
			}
			p := <-got
			r := b.nextRecord(t, n)
			if p.header.Source != from || p.header.Destination != to || p.header.Version != s.SendProxy || string(p.rest) != "what the client says" {
				t.Errorf("%s: the backend got %+v", s.Name, p)
			}
			if id := fmt.Sprintf("%016x", r.FlowID); s.SendProxy == 2 && p.id != id {
				t.Errorf("unique id %q, want %q", p.id, id)
			}
			if r.BytesIn != 20 {
				t.Errorf("%d bytes in, want 20", r.BytesIn)
			}
			retried += r.Retries
		}
		if retried == 0 {
			t.Error("no connect was tried again")
		}
		b.wantBooks(t)
	})
}
