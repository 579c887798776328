package proxy

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/tproxyd/tproxyd/internal/lab"
)

func TestShadowShare(t *testing.T) {
	const flows = 100_000
	for _, percent := range []int{1, 10, 50, 99, 100} {
		s, n := Shadow{Percent: percent}, 0
		for id := range uint64(flows) {
			if s.takes(3<<workerShift | id) {
				n++
			}
		}
		want := flows * percent / 100
		if n < want-flows/100 || n > want+flows/100 || percent == 100 && n != flows {
			t.Errorf("%d per cent are %d flows of %d", percent, n, flows)
		}
	}
}

// TestShadowBytes holds that a shadow gets what the client sent, byte for byte
// and to its end, by whatever path it went.
func TestShadowBytes(t *testing.T) {
	families(t, lab.ServerIP4, lab.ServerIP6, func(t *testing.T, ip string) {
		m := meet(t, func(s *Service) { *s = shadowed(*s, ip) })
		got := m.noiseShadow(5)
		var ends uint64
		m.each(func(t *testing.T, m *meeting, w way) {
			before := m.shadowCounts(w.service)
			ends = before.results["ok"]
			var total uint64
			for _, tt := range []struct{ size, piece int }{{1, 1}, {20 << 10, 1000}, {768 << 10, 256 << 10}} {
				cl, srv := m.pair(w.address)
				sent := make(chan error, 1)
				go func() {
					err := sendNoise(cl, 5, tt.size, tt.piece)
					if err == nil {
						err = cl.CloseWrite()
					}
					sent <- err
				}()
				if n, err := readNoise(srv, 5); n != tt.size || err != nil {
					t.Fatalf("the server got %d of %d bytes, %v", n, tt.size, err)
				}
				srv.Close()
				if err := <-sent; err != nil {
					t.Fatal(err)
				}
				h := <-got
				if h.n != tt.size || h.err != nil {
					t.Fatalf("the shadow got %d of %d bytes, %v; %+v", h.n, tt.size, h.err, m.shadowCounts(w.service))
				}
				ends++
				total += uint64(tt.size)
			}
			c := m.wantShadows(t, w.service, ends)
			if d := cmp.Diff(map[string]uint64{"ok": ends}, c.results); d != "" {
				t.Errorf("results, -want +got:\n%s", d)
			}
			if n := c.sent - before.sent; n != total || c.received == before.received {
				t.Errorf("%d bytes sent to the shadow, want %d; %d received", n, total, c.received-before.received)
			}
			if m.pathBytes(w.service, client, pathSplice) == 0 || m.pathBytes(w.service, client, pathCopy) == 0 {
				t.Error("the streams have not gone both ways")
			}
		})
	})
}

// TestShadowDirections has a shadow for each direction.
func TestShadowDirections(t *testing.T) {
	b := newBed(t, shadowed(vip("web", 80), lab.ServerIP4, func(s *Shadow) { s.Direction = ShadowBoth }))
	const question, answer = "which way?", "both ways"
	b.server(80, func(c *net.TCPConn) {
		_, _ = io.ReadFull(c, make([]byte, len(question)))
		_, _ = c.Write([]byte(answer))
	})
	got := make(chan string, 2)
	b.server(shadowPort, func(c *net.TCPConn) {
		text, _ := io.ReadAll(c)
		got <- string(text)
	})
	c := b.dial(addrPort(lab.VIP4, 80))
	if _, err := c.Write([]byte(question)); err != nil {
		t.Fatal(err)
	}
	_, _ = io.ReadAll(c)
	c.Close()
	all := map[string]bool{<-got: true, <-got: true}
	if d := cmp.Diff(map[string]bool{question: true, answer: true}, all); d != "" {
		t.Errorf("shadows got, -want +got:\n%s", d)
	}
	b.wantShadows(t, "web", 2)
}

// TestShadowFaults has shadows that do what they should not while many flows
// go on.
func TestShadowFaults(t *testing.T) {
	const flows, size = 200, 192 << 10
	for _, tt := range []struct {
		name, ip string
		serve    func(c *net.TCPConn, stop <-chan struct{}) // nil: nobody listens
		clients  int
		size     int
		allowed  map[string]bool
	}{
		{"refusing", lab.ServerIP4, nil, flows, size, map[string]bool{"refused": true}},
		{"refusing-v6", lab.ServerIP6, nil, flows, 100, map[string]bool{"refused": true}},
		{"nowhere", "240.0.0.1", nil, flows, size, map[string]bool{"unreachable": true, "resources": true, "overflow": true}},
		{"hanging", lab.ServerIP4, func(_ *net.TCPConn, stop <-chan struct{}) { <-stop }, 4, 24 << 20, map[string]bool{"overflow": true}},
		{"slow", lab.ServerIP6, func(c *net.TCPConn, stop <-chan struct{}) {
			_ = c.SetReadBuffer(4 << 10)
			_, _ = io.CopyN(io.Discard, c, 16<<10)
			<-stop
		}, 4, 24 << 20, map[string]bool{"overflow": true}},
		{"dying", lab.ServerIP4, func(c *net.TCPConn, _ <-chan struct{}) {
			_, _ = io.CopyN(io.Discard, c, 16<<10)
			abort(c)
		}, flows, size, map[string]bool{"reset": true}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := newBed(t, shadowed(vip("web", 80), tt.ip))
			b.server(80, echo)
			stop := make(chan struct{})
			if tt.serve != nil {
				b.server(shadowPort, func(c *net.TCPConn) { tt.serve(c, stop) })
			}
			err := b.crowd(80, tt.clients, tt.size)
			if err != nil {
				t.Error(err)
			}
			close(stop)
			b.ends("web", map[Reason]uint64{ClientClose: uint64(tt.clients)})
			c := b.wantShadows(t, "web", uint64(tt.clients))
			for result := range c.results {
				if !tt.allowed[result] {
					t.Errorf("results %v, want only %v", c.results, tt.allowed)
				}
			}
			b.wantBooks(t)
		})
	}
}

// TestShadowIsABeginning holds that what an overflowing shadow got is the
// beginning of the stream, and that it does not look whole.
func TestShadowIsABeginning(t *testing.T) {
	const size = 24 << 20
	m := meet(t, func(s *Service) { *s = shadowed(*s, lab.ServerIP4) })
	release := make(chan struct{})
	got := make(chan heard, 1)
	m.server(shadowPort, func(c *net.TCPConn) {
		<-release
		n, err := readNoise(c, 3)
		got <- heard{n, err}
	})
	cl, srv := m.pair(addrPort(lab.VIP4, 80))
	go func() {
		_ = sendNoise(cl, 3, size, 64<<10)
		_ = cl.CloseWrite()
	}()
	if n, err := readNoise(srv, 3); n != size || err != nil {
		t.Fatalf("the server got %d of %d bytes, %v", n, size, err)
	}
	srv.Close()
	c := m.wantShadows(t, "web", 1)
	close(release)
	h := <-got
	if c.results["overflow"] != 1 || h.n >= size || h.err == nil {
		t.Errorf("%v; the shadow got %d bytes, %v", c.results, h.n, h.err)
	}
	if _, ok := errors.AsType[*net.OpError](h.err); !ok {
		t.Errorf("the shadow got something else than a beginning: %v", h.err)
	}
}

// TestShadowCut holds that a copy of a flow that was reset ends in RST too.
func TestShadowCut(t *testing.T) {
	m := meet(t, func(s *Service) { *s = shadowed(*s, lab.ServerIP4) })
	got := make(chan error, 1)
	m.server(shadowPort, func(c *net.TCPConn) {
		_, err := io.ReadAll(c)
		got <- err
	})
	cl, srv := m.pair(addrPort(lab.VIP6, 80))
	exchange(t, cl, srv)
	abort(cl)
	if err := <-got; err == nil {
		t.Error("the shadow saw an end")
	}
	if c := m.wantShadows(t, "web", 1); c.results["cut"] != 1 {
		t.Errorf("results %v", c.results)
	}
}

// TestShadowCompare has a shadow that answers like the server, and one that
// does not.
func TestShadowCompare(t *testing.T) {
	const flows, size = 20, 300 << 10
	for name, wrong := range map[string]uint64{"equal": 0, "different": flows} {
		t.Run(name, func(t *testing.T) {
			b := newBed(t, shadowed(vip("web", 80), lab.ServerIP6, comparing))
			b.server(80, echo)
			b.server(shadowPort, func(c *net.TCPConn) {
				if wrong > 0 {
					swallow(c)
					_, _ = c.Write([]byte("something else"))
				} else {
					echo(c)
				}
			})
			if err := b.crowd(80, flows, size); err != nil {
				t.Fatal(err)
			}
			c := b.wantShadows(t, "web", flows)
			st := b.proxy.Services()[0].Copies
			if st.Total != flows || st.Failed != 0 || st.Mismatches != wrong || st.Active != 0 || st.Sent != flows*size {
				t.Errorf("status %+v", st)
			}
			if c.results["ok"] != flows || c.wrong != wrong {
				t.Errorf("results %v, %d mismatches, want %d", c.results, c.wrong, wrong)
			}
			if wrong == 0 && c.received != flows*size {
				t.Errorf("%d bytes received, want %d", c.received, flows*size)
			}
		})
	}
}

// TestShadowReload switches a shadow on and off under flows that stay, and
// counts descriptors.
func TestShadowReload(t *testing.T) {
	plain := vip("web", 80)
	m := meet(t)
	var conns atomic.Int64
	m.server(shadowPort, func(c *net.TCPConn) {
		conns.Add(1)
		swallow(c)
	})
	start := descriptors(t)
	old, oldServer := m.pair(addrPort(lab.VIP4, 80))
	exchange(t, old, oldServer)
	m.apply(Config{Services: []Service{shadowed(plain, lab.ServerIP4), intercept()}})
	if n := m.proxy.Limits().MaxShadows; n <= 0 {
		t.Errorf("%d shadows are allowed", n)
	}
	cl, srv := m.pair(addrPort(lab.VIP4, 80))
	exchange(t, cl, srv)
	eventually(t, func() bool { return conns.Load() == 1 }, "one flow of two is copied")
	m.apply(Config{Services: []Service{plain, intercept()}})
	if c := m.wantShadows(t, "web", 1); c.results["off"] != 1 {
		t.Errorf("results %v", c.results)
	}
	exchange(t, cl, srv)
	exchange(t, srv, cl)
	exchange(t, old, oldServer)
	for _, c := range []*net.TCPConn{old, oldServer, cl, srv} {
		c.Close()
	}
	m.wantBooks(t)
	m.proxy.each(func(w *worker) { w.pipes.trim() })
	eventually(t, func() bool { return openedSince(t, start) == 0 }, "no descriptor is left")
}

// TestShadowUDP copies datagrams, compares answers, and has a shadow that is
// not there.
func TestShadowUDP(t *testing.T) {
	const datagrams = 50
	different := func(data []byte, _ netip.AddrPort) [][]byte { return [][]byte{append([]byte("no "), data...)} }
	families(t, lab.ServerIP4, lab.ServerIP6, func(t *testing.T, ip string) {
		for _, tt := range []struct {
			name   string
			answer func([]byte, netip.AddrPort) [][]byte
			wrong  uint64
			result string
		}{{"equal", mirror, 0, "ok"}, {"different", different, 1, "ok"}, {"refusing", nil, 0, "refused"}} {
			t.Run(tt.name, func(t *testing.T) {
				s := shadowed(udpVIP("dns", 53), ip, comparing)
				b := newBed(t, s)
				b.datagramServer(mirror)
				if tt.answer != nil {
					b.datagramServerOn(ip, shadowPort, tt.answer)
				}
				c := b.talk(addrPort(lab.VIP4, 53))
				sent := uint64(0)
				for i := range datagrams {
					data := fmt.Appendf(nil, "datagram %d", i)
					if got := ask(t, c, data); string(got) != string(data) {
						t.Fatalf("asked %q, got %q", data, got)
					}
					sent += uint64(len(data))
				}
				b.proxy.each(func(w *worker) {
					w.udp.flows.all(func(f *udpFlow) { w.udp.end(f, IdleTimeout) })
				})
				n := b.wantShadows(t, "dns", 1)
				if n.results[tt.result] != 1 || n.wrong != tt.wrong || tt.result == "ok" && n.sent != sent {
					t.Errorf("results %v, %d mismatches, %d bytes sent, want %s, %d, %d", n.results, n.wrong, n.sent, tt.result, tt.wrong, sent)
				}
			})
		}
	})
}

// TestShadowProxyHeader holds that a shadow gets the header that the backend
// gets: it sees the proxy's address.
func TestShadowProxyHeader(t *testing.T) {
	s := shadowed(vip("web", 80), lab.ServerIP4)
	s.SendProxy = 1
	m := &meeting{bed: newBed(t, s)}
	got := make(chan string, 2)
	read := func(c *net.TCPConn) {
		text, _ := io.ReadAll(c)
		got <- string(text)
	}
	m.server(80, read)
	m.server(shadowPort, read)
	c := m.dial(addrPort(lab.VIP4, 80))
	if _, err := c.Write([]byte("payload")); err != nil {
		t.Fatal(err)
	}
	c.Close()
	first, second := <-got, <-got
	want := fmt.Sprintf("PROXY TCP4 %s %s %d 80\r\npayload", lab.ClientIP4, lab.VIP4, c.LocalAddr().(*net.TCPAddr).Port)
	if first != want || second != want {
		t.Errorf("got %q and %q, want %q", first, second, want)
	}
	m.wantShadows(t, "web", 1)
}
