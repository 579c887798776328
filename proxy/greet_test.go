package proxy

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/tproxyd/tproxyd/internal/lab"
	"github.com/tproxyd/tproxyd/internal/proxyproto"
	"golang.org/x/sys/unix"
)

// headered returns a service whose clients have to send a PROXY header.
func headered(name string, port int) Service {
	s := vip(name, port)
	s.AcceptProxy, s.ProxyTimeout, s.HelloTimeout, s.HelloMax = ProxyRequire, time.Hour, time.Hour, MaxHello
	return s
}

// named is an address of the client's range, of the family of ip.
func named(ip string, port int) netip.AddrPort {
	if netip.MustParseAddr(ip).Is4() {
		return addrPort("198.18.16.77", port)
	}
	return addrPort("2001:db8:16::77", port)
}

// proxyHeader is the header of a version that names these addresses.
func proxyHeader(version int, source, destination netip.AddrPort) []byte {
	if version == 1 {
		return proxyproto.AppendV1(nil, source, destination)
	}
	return proxyproto.AppendV2(nil, &proxyproto.Header{Source: source, Destination: destination})
}

// seen tells each client, in a line, whom it is taken for, and sends back what
// comes.
func seen(c *net.TCPConn) {
	_, _ = fmt.Fprintf(c, "%-60s\n", c.RemoteAddr())
	echo(c)
}

// readSeen reads what seen says.
func readSeen(t *testing.T, c net.Conn) netip.AddrPort {
	t.Helper()
	line := make([]byte, 61)
	if _, err := io.ReadFull(c, line); err != nil {
		t.Fatal(err)
	}
	return netip.MustParseAddrPort(string(bytes.TrimSpace(line)))
}

// bytewise sends each byte by itself.
func bytewise(c net.Conn, b []byte) error {
	for i := range b {
		if _, err := c.Write(b[i : i+1]); err != nil {
			return err
		}
	}
	return nil
}

func together(c net.Conn, b []byte) error {
	_, err := c.Write(b)
	return err
}

// TestProxyHeader has backends see the address that the header names, under
// each policy and however the header arrives.
func TestProxyHeader(t *testing.T) {
	sources := []Source{Client, ClientIP, PreferClient, Host}
	families(t, lab.VIP4, lab.VIP6, func(t *testing.T, ip string) {
		var services []Service
		for i, source := range sources {
			s := headered(source.String(), 80+i)
			s.Source = source
			services = append(services, s)
		}
		b := newBed(t, services...)
		n, port := 0, 40000
		for i, source := range sources {
			b.server(80+i, seen)
			for version := 1; version <= 2; version++ {
				for _, send := range []func(net.Conn, []byte) error{together, bytewise} {
					for _, size := range []int{100, 60 << 10} {
						port++
						from, to := named(ip, port), netip.AddrPortFrom(named(ip, 1).Addr(), 443)
						c := b.dial(addrPort(ip, 80+i))
						header, data := proxyHeader(version, from, to), noiseAt(port, 0)
						data = bytes.Repeat(data, 1+size/len(data))[:size:size]
						if size == 100 {
							header = append(header, data...)
							data = header[len(header)-100:]
						}
						if err := send(c, header); err != nil {
							t.Fatal(err)
						}
						if size > 100 {
							if err := together(c, data); err != nil {
								t.Fatal(err)
							}
						}
						who := readSeen(t, c)
						if err := c.CloseWrite(); err != nil {
							t.Fatal(err)
						}
						back, err := io.ReadAll(c)
						if err != nil || !bytes.Equal(back, data) {
							t.Fatalf("%s: %d bytes came back, want %d: %v", source, len(back), len(data), err)
						}
						switch {
						case source == Host && who.Addr() == from.Addr(),
							source != Host && who.Addr() != from.Addr(),
							(source == Client || source == PreferClient) && who != from:
							t.Errorf("%s: the backend sees %v, the header names %v", source, who, from)
						}
						r := b.nextRecord(t, n)
						n++
						if r.Client != from || r.Destination != to || r.BytesIn != uint64(size) || r.UpstreamSource != who {
							t.Errorf("%s: record %+v", source, r)
						}
					}
				}
			}
		}
		b.wantBooks(t)
	})
}

// TestProxyHeaderLocal uses the connection's own address if the header tells
// none.
func TestProxyHeaderLocal(t *testing.T) {
	families(t, lab.VIP4, lab.VIP6, func(t *testing.T, ip string) {
		b := newBed(t, headered("web", 80))
		b.server(80, seen)
		for _, h := range [][]byte{[]byte("PROXY UNKNOWN\r\n"), proxyproto.AppendV2(nil, &proxyproto.Header{Local: true})} {
			c := b.dial(addrPort(ip, 80))
			if err := together(c, h); err != nil {
				t.Fatal(err)
			}
			if who := readSeen(t, c).String(); who != c.LocalAddr().String() {
				t.Errorf("the backend sees %s, want %v", who, c.LocalAddr())
			}
			mustPing(t, c)
			c.Close()
		}
		b.ends("web", map[Reason]uint64{ClientClose: 2})
	})
}

// TestProxyHeaderRefused closes connections without a header, or with a wrong
// one, before a backend hears of them.
func TestProxyHeaderRefused(t *testing.T) {
	b := newBed(t, headered("web", 80))
	to := addrPort(lab.VIP4, 80)
	good := proxyHeader(2, named(lab.VIP4, 1), to)
	mutated := func(i int, v byte) []byte {
		m := bytes.Clone(good)
		m[i] = v
		return m
	}
	cases := map[string][]byte{
		"none":         []byte("GET / HTTP/1.0\r\n\r\n"),
		"signature":    mutated(11, 'x'),
		"version 3":    mutated(12, 0x31),
		"command":      mutated(12, 0x2f),
		"family":       mutated(13, 0x41),
		"datagrams":    mutated(13, 0x12),
		"short block":  mutated(15, 4),
		"long block":   mutated(14, 0xff),
		"port 0":       proxyHeader(2, named(lab.VIP4, 0), to),
		"unspecified":  proxyHeader(2, addrPort("0.0.0.0", 9), to),
		"multicast":    proxyHeader(1, addrPort("224.0.0.1", 9), to),
		"text":         []byte("PROXY TCP4 198.18.16.7 198.18.16.8 1 x\r\n"),
		"long text":    append([]byte("PROXY UNKNOWN "), bytes.Repeat([]byte("a"), proxyproto.MaxV1)...),
		"bare newline": []byte("PROXY UNKNOWN\n"),
	}
	for name, data := range cases {
		c := b.dial(to)
		_ = together(c, data)
		if got, err := io.ReadAll(c); err == nil || len(got) > 0 {
			t.Errorf("%s: read %q and %v, want a reset", name, got, err)
		}
	}
	// Half a header and the end of the stream.
	c := b.dial(to)
	_ = together(c, good[:20])
	_ = c.CloseWrite()
	wantRST(t, c)
	// Nothing and the end, or RST.
	c = b.dial(to)
	c.Close()
	c = b.dial(to)
	_ = together(c, good[:3])
	eventually(t, func() bool { return b.inState(greeting) == 1 }, "the header is awaited")
	abort(c)
	b.ends("web", map[Reason]uint64{ProxyHeaderRefused: uint64(len(cases)) + 1, ClientAbort: 2})
	b.wantTries("web", "a4", map[string]uint64{})
	b.wantBooks(t)
}

// TestGreetingTimeout has thousands of clients that say nothing, and as many
// that send a byte now and then: all are gone in time, and nobody else suffers.
func TestGreetingTimeout(t *testing.T) {
	const clients = 1000
	s := headered("web", 80)
	s.IdleTimeout = 0
	routed := routedService("routed", 81)
	routed.IdleTimeout = 0
	other := vip("other", 82)
	other.IdleTimeout = 0
	b := newBedConfig(t, Config{Services: []Service{s, routed, other}})
	b.server(82, echo)
	busy := b.dial(addrPort(lab.VIP4, 82))
	mustPing(t, busy)
	var slow []net.Conn
	for i := range clients {
		for port := 80; port <= 81; port++ {
			c := b.dial(addrPort(lab.VIP4, port))
			if i%2 == 0 {
				slow = append(slow, c)
			}
		}
	}
	eventually(t, func() bool { return b.inState(greeting) == 2*clients }, "all are greeting")
	starts := [2]string{"PROX", "\x16\x03\x01\x02"}
	for round := range 4 {
		for i, c := range slow {
			if err := together(c, []byte(starts[i%2][round:round+1])); err != nil {
				t.Fatal(err)
			}
		}
		mustPing(t, busy)
		if round < 3 {
			b.later(15 * time.Minute)
		}
	}
	if n := b.inState(greeting); n != 2*clients {
		t.Errorf("%d are greeting before the time is over, want %d", n, 2*clients)
	}
	b.later(15 * time.Minute)
	b.ends("web", map[Reason]uint64{GreetingTimeout: clients})
	b.ends("routed", map[Reason]uint64{GreetingTimeout: clients})
	for _, c := range slow[:10] {
		wantRST(t, c)
	}
	mustPing(t, busy)
	busy.Close()
	b.wantBooks(t)
}

// TestProxyHeaderTrust believes nobody who may not send a header: who has to is
// refused, others are plain clients, and cut if they try. The backend never
// gets a whole signature.
func TestProxyHeaderTrust(t *testing.T) {
	trusted := []netip.Prefix{netip.MustParsePrefix(lab.ClientRange4), netip.MustParsePrefix(lab.ClientRange6)}
	must, may, routed := headered("must", 80), headered("may", 81), routedService("routed", 82)
	may.AcceptProxy, routed.AcceptProxy = ProxyAcceptFrom, ProxyAcceptFrom
	for _, s := range []*Service{&must, &may, &routed} {
		s.ProxyFrom, s.ProxyTimeout = trusted, time.Hour
	}
	families(t, lab.VIP4, lab.VIP6, func(t *testing.T, ip string) {
		b := newBed(t, must, may, routed)
		var mu sync.Mutex
		var got [][]byte
		for port := 80; port <= 82; port++ {
			b.server(port, func(c *net.TCPConn) {
				var all []byte
				buf := make([]byte, 512)
				for {
					n, err := c.Read(buf)
					all = append(all, buf[:n]...)
					if err != nil {
						break
					}
					_, _ = c.Write(buf[:n])
				}
				mu.Lock()
				got = append(got, all)
				mu.Unlock()
			})
		}
		b.wantRefused(addrPort(ip, 80))
		b.ends("must", map[Reason]uint64{ProxyHeaderRefused: 1})
		forged := 0
		for port := 81; port <= 82; port++ {
			plain := b.dial(addrPort(ip, port))
			mustPing(t, plain)
			plain.Close()
			proxied, err := b.Client.DialFrom(t.Context(), "tcp", named(ip, 0).String(), addrPort(ip, port).String())
			if err != nil {
				t.Fatal(err)
			}
			_ = proxied.SetDeadline(time.Now().Add(time.Minute))
			_ = together(proxied, proxyHeader(2, named(ip, 7000+port), addrPort(ip, 443)))
			mustPing(t, proxied)
			proxied.Close()
			for version := 1; version <= 2; version++ {
				for _, send := range []func(net.Conn, []byte) error{together, bytewise} {
					c := b.dial(addrPort(ip, port))
					err := send(c, append(proxyHeader(version, named(ip, 7), addrPort(ip, 443)), "evil"...))
					if err == nil { // the kernel tells of a reset once
						_, err = io.ReadAll(c)
					}
					if err == nil {
						t.Error("a forged header ends in order, want a reset")
					}
					forged++
				}
			}
		}
		want := map[Reason]uint64{ClientClose: 2, ProxyHeaderRefused: uint64(forged / 2)}
		b.ends("may", want)
		b.ends("routed", want)
		mu.Lock()
		defer mu.Unlock()
		for _, g := range got {
			if bytes.HasPrefix(g, []byte("PROXY ")) || bytes.HasPrefix(g, proxyHeader(2, named(ip, 7), addrPort(ip, 443))[:12]) {
				t.Errorf("a backend got %q", g)
			}
		}
	})
}

// TestGreetingUrgent has an urgent byte come with the end of a header, at which
// reads stop short. What is behind it arrives all the same.
func TestGreetingUrgent(t *testing.T) {
	s := headered("web", 80)
	b := newBed(t, s)
	b.server(80, seen)
	c := b.dial(addrPort(lab.VIP4, 80))
	from := named(lab.VIP4, 4000)
	h := proxyHeader(2, from, addrPort(lab.VIP4, 80))
	if err := together(c, h[:20]); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() bool { return b.flowNow().dirs[client].buf != nil }, "half of the header is there")
	thaw := b.freeze(nil)
	control(t, c, func(fd int) error {
		_, err := unix.SendmsgN(fd, append(h[20:], "abc"...), nil, nil, unix.MSG_OOB)
		return err
	})
	if err := together(c, []byte("def")); err != nil {
		t.Fatal(err)
	}
	waitAcked(t, c)
	thaw()
	readSeen(t, c)
	back := make([]byte, 6)
	if _, err := io.ReadFull(c, back); err != nil || string(back) != "abcdef" {
		t.Errorf("%q came back: %v", back, err)
	}
}

// TestGreetingEnds lets either side end the stream, in order or not, when the
// greeting is over.
func TestGreetingEnds(t *testing.T) {
	b := newBed(t, headered("web", 80))
	conns := make(chan *net.TCPConn)
	over := make(chan struct{})
	b.server(80, func(c *net.TCPConn) { conns <- c; <-over })
	t.Cleanup(func() { close(over) })
	begin := func(port int) (cl, srv *net.TCPConn) {
		cl = b.dial(addrPort(lab.VIP4, 80))
		_ = bytewise(cl, proxyHeader(1, named(lab.VIP4, port), addrPort(lab.VIP4, 80)))
		srv = <-conns
		eventually(t, func() bool { return b.inState(relaying) == 1 }, "the proxy knows that it is connected")
		return cl, srv
	}
	cl, srv := begin(6001)
	_ = srv.CloseWrite() // the backend first
	if _, err := io.ReadAll(cl); err != nil {
		t.Error(err)
	}
	_ = together(cl, []byte("still here"))
	_ = cl.CloseWrite()
	if got, err := io.ReadAll(srv); err != nil || string(got) != "still here" {
		t.Errorf("read %q: %v", got, err)
	}
	cl, srv = begin(6002)
	abort(srv)
	wantRST(t, cl)
	cl, srv = begin(6003)
	abort(cl)
	wantRST(t, srv)
	b.ends("web", map[Reason]uint64{UpstreamClose: 1, UpstreamReset: 1, ClientReset: 1})
	b.wantBooks(t)
}
