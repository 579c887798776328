package proxy

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/tproxyd/tproxyd/internal/health"
	"github.com/tproxyd/tproxyd/internal/lab"
	"github.com/tproxyd/tproxyd/internal/netnstest"
	"github.com/tproxyd/tproxyd/internal/proxyproto"
)

// routedService has three routes and a default pool. Their backends are at 91,
// 92 and 93; that of the default pool has the service's port.
func routedService(name string, port int) Service {
	s := vip(name, port)
	s.HelloTimeout, s.HelloMax, s.Default = time.Hour, MaxHello, true
	s.Routes = []Route{
		{Name: "api", SNI: []string{"api.example.org"}},
		{Name: "wild", SNI: []string{"*.example.org"}},
		{Name: "h2", ALPN: []string{"h2"}},
	}
	for i := range s.Routes {
		for _, be := range bothPools(91 + i) {
			be.Route = 1 + i
			s.Backends = append(s.Backends, be)
		}
	}
	return s
}

// certificate is one that signs itself.
func certificate(t *testing.T) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, &c, &c, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// tlsNames makes TLS servers that answer with their names, by whatever protocol
// clients offer.
func (b *bed) tlsNames(ports ...int) {
	cert := certificate(b.t)
	for _, port := range ports {
		b.server(port, func(c *net.TCPConn) {
			s := tls.Server(c, &tls.Config{Certificates: []tls.Certificate{cert}})
			_, _ = fmt.Fprintf(s, "b%d", port)
			_, _ = io.Copy(s, s)
		})
	}
}

// segmented changes how what is written leaves.
type segmented struct {
	net.Conn
	send func(c net.Conn, b []byte) error
}

func (s segmented) Write(b []byte) (int, error) {
	if err := s.send(s.Conn, b); err != nil {
		return 0, err
	}
	return len(b), nil
}

// inRecords sends the first record as many.
func inRecords(c net.Conn, b []byte) error {
	if b[0] != 22 || b[5] != 1 {
		return together(c, b)
	}
	for rest := b[5:]; len(rest) > 0; {
		n := min(100, len(rest))
		if err := together(c, append([]byte{22, 3, 1, 0, byte(n)}, rest[:n]...)); err != nil {
			return err
		}
		rest = rest[n:]
	}
	return nil
}

// hello is the ClientHello of Go's TLS.
func hello(c *tls.Config) []byte {
	var sent bytes.Buffer
	c.InsecureSkipVerify = true
	near, far := net.Pipe()
	near.Close()
	far.Close()
	_ = tls.Client(segmented{near, func(_ net.Conn, b []byte) error { sent.Write(b); return nil }}, c).Handshake()
	return sent.Bytes()
}

// manyProtocols make a hello of about n bytes.
func manyProtocols(n int) (all []string) {
	for i := range n / 256 {
		all = append(all, fmt.Sprintf("%0255d", i))
	}
	return all
}

// TestRoutes leads real TLS clients to the backends of their names and
// protocols, however their hellos arrive.
func TestRoutes(t *testing.T) {
	families(t, lab.VIP4, lab.VIP6, func(t *testing.T, ip string) {
		b := newBed(t, routedService("web", 90))
		b.tlsNames(90, 91, 92, 93)
		for _, tc := range []struct {
			name, want string
			alpn       []string
			max        uint16
		}{
			{name: "api.example.org", want: "b91"},
			{name: "API.Example.ORG", want: "b91"},
			{name: "api.example.org", alpn: []string{"h2"}, want: "b91"},
			{name: "a.b.example.org", want: "b92", max: tls.VersionTLS12},
			{name: "example.org", want: "b90"},
			{name: "example.net", alpn: []string{"http/1.1", "h2"}, want: "b93"},
			{alpn: []string{"h2"}, want: "b93"},
			{want: "b90"},
			{name: "api.example.org", alpn: manyProtocols(58 << 10), want: "b91"},
		} {
			for i, send := range []func(net.Conn, []byte) error{together, bytewise, inRecords} {
				if i > 0 && len(tc.alpn) > 10 {
					continue // 60,000 segments
				}
				c := tls.Client(segmented{b.dial(addrPort(ip, 90)), send}, &tls.Config{
					ServerName: tc.name, NextProtos: tc.alpn, InsecureSkipVerify: true, MaxVersion: tc.max,
				})
				name := make([]byte, 3)
				if _, err := io.ReadFull(c, name); err != nil || string(name) != tc.want {
					t.Errorf("name %q, %d protocols: answer %q, want %s: %v", tc.name, len(tc.alpn), name, tc.want, err)
				}
				if err := ping(c); err != nil {
					t.Error(err)
				}
				_ = c.Close()
			}
		}
		eventually(t, func() bool { return b.proxy.Active() == 0 }, "all have ended")
		b.wantBooks(t)
	})
}

// TestRoutesPrograms has curl and openssl choose.
func TestRoutesPrograms(t *testing.T) {
	b := newBed(t, routedService("web", 90))
	cert := certificate(t)
	for port := 90; port <= 92; port++ {
		b.server(port, func(c *net.TCPConn) {
			s := tls.Server(c, &tls.Config{Certificates: []tls.Certificate{cert}})
			_, _ = fmt.Fprintf(s, "b%d", port)
			_ = s.CloseWrite()
			_, _ = io.Copy(io.Discard, s)
		})
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	openssl := netnstest.Need(t, "openssl", "openssl")
	for name, want := range map[string]string{"api.example.org": "b91", "x.example.org": "b92", "example.com": "b90"} {
		cmd := b.Client.Command(ctx, openssl, "s_client", "-quiet", "-connect", addrPort(lab.VIP4, 90).String(), "-servername", name)
		cmd.Stdin = strings.NewReader("")
		out, _ := cmd.Output() // the status tells of the certificate
		if !bytes.Contains(out, []byte(want)) {
			t.Errorf("openssl for %s got %q, want %s", name, out, want)
		}
	}
	curl := netnstest.Need(t, "curl", "curl")
	out, _ := b.Client.Command(ctx, curl, "-sk", "--http0.9", "--max-time", "5", "--connect-to", "::"+lab.VIP4+":90", "https://api.example.org/").Output()
	if !bytes.Contains(out, []byte("b91")) {
		t.Errorf("curl got %q, want b91", out)
	}
}

// TestRoutesRefused closes what no route is for and what is no legal hello.
// What is not TLS has the default pool.
func TestRoutesRefused(t *testing.T) {
	web, closed := routedService("web", 90), routedService("closed", 94)
	web.HelloMax = 4 << 10
	closed.Default, closed.Backends = false, closed.Backends[2:]
	b := newBed(t, web, closed)
	b.server(90, echo)
	b.server(91, echo)
	plain := b.dial(addrPort(lab.VIP4, 90))
	mustPing(t, plain)
	plain.Close()
	long := b.dial(addrPort(lab.VIP4, 90))
	_ = together(long, hello(&tls.Config{ServerName: "api.example.org", NextProtos: manyProtocols(8 << 10)}))
	if _, err := io.ReadAll(long); err == nil {
		t.Error("a hello that is too long ends in order")
	}
	short := b.dial(addrPort(lab.VIP4, 90))
	_ = together(short, hello(&tls.Config{ServerName: "api.example.org"})[:50])
	_ = short.CloseWrite()
	wantRST(t, short)
	wrong := b.dial(addrPort(lab.VIP4, 90))
	_ = together(wrong, []byte{22, 3, 1, 0, 10, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0})
	wantRST(t, wrong)
	waits := b.dial(addrPort(lab.VIP4, 90)) // for the server's first word
	eventually(t, func() bool { return b.inState(greeting) == 1 }, "a hello is awaited")
	b.later(web.HelloTimeout)
	wantRST(t, waits)
	b.ends("web", map[Reason]uint64{ClientClose: 1, ClientHelloRefused: 3, GreetingTimeout: 1})
	for _, data := range [][]byte{[]byte("GET /"), hello(&tls.Config{ServerName: "example.com"})} {
		c := b.dial(addrPort(lab.VIP4, 94))
		_ = together(c, data)
		wantRST(t, c)
	}
	b.ends("closed", map[Reason]uint64{NoRoute: 2})
	b.wantBooks(t)
}

// TestRouteStream splices what comes behind a hello.
func TestRouteStream(t *testing.T) {
	const size = 32 << 20
	s := routedService("web", 90)
	s.SendProxy = 2
	b := newBed(t, s)
	first := hello(&tls.Config{ServerName: "api.example.org"})
	sums := make(chan [2]string, 1)
	b.server(91, func(c *net.TCPConn) {
		all, _ := io.ReadAll(io.LimitReader(c, 512))
		ph, n, err := proxyproto.Parse(all)
		if err != nil {
			t.Error(err)
		}
		h := sha256.New()
		h.Write(all[n:])
		_, _ = io.Copy(h, c)
		sums <- [2]string{string(h.Sum(nil)), string(ph.Authority)}
		_ = sendNoise(c, 7, size, 256<<10)
	})
	c := b.dial(addrPort(lab.VIP4, 90))
	want := sha256.New()
	to := io.MultiWriter(want, c)
	_, _ = to.Write(first)
	block := bytes.Repeat(noiseAt(0, 0), 2)
	for sent := 0; sent < size; sent += len(block) {
		if _, err := to.Write(block); err != nil {
			t.Fatal(err)
		}
	}
	_ = c.CloseWrite()
	got := <-sums
	if got[0] != string(want.Sum(nil)) {
		t.Error("the backend has got other bytes")
	}
	if got[1] != "api.example.org" {
		t.Errorf("the authority is %q", got[1])
	}
	if n, err := io.Copy(io.Discard, c); err != nil || n != size {
		t.Errorf("%d bytes came back: %v", n, err)
	}
	c.Close()
	if r := b.record(); r.PathIn != "splice" || r.PathOut != "splice" {
		t.Errorf("paths %s and %s, want splice", r.PathIn, r.PathOut)
	}
}

// TestRouteHealth has each route go by the states of its own backends.
func TestRouteHealth(t *testing.T) {
	s := routedService("web", 90)
	s.Health = health.Policy{Checked: true, Rise: 1, Fall: 1, InitialUp: true}
	b := newBed(t, s)
	b.tlsNames(90, 91, 92, 93)
	ask := func(server string) error {
		c := tls.Client(b.dial(addrPort(lab.VIP4, 90)), &tls.Config{ServerName: server, InsecureSkipVerify: true})
		defer func() { _ = c.Close() }()
		_, err := io.ReadFull(c, make([]byte, 3))
		return err
	}
	b.proxy.CheckResult("web", "b91", false, "refused")
	if err := ask("api.example.org"); err == nil {
		t.Error("a route whose backend is down answers")
	}
	for _, other := range []string{"x.example.org", "example.com"} {
		if err := ask(other); err != nil {
			t.Errorf("%s: %v", other, err)
		}
	}
	b.proxy.CheckResult("web", "b91", true, "")
	if err := ask("api.example.org"); err != nil {
		t.Error(err)
	}
}

// TestRouteReload changes the routes while flows wait for their hello, or for
// room at the backend of their route.
func TestRouteReload(t *testing.T) {
	s := routedService("web", 90)
	s.QueueSize, s.QueueTimeout = 10, time.Hour
	for i := range s.Backends {
		if s.Backends[i].Name == "b91" {
			s.Backends[i].Limit = 1
		}
	}
	b := newBed(t, s)
	b.names(90, 91, 92, 93)
	say := hello(&tls.Config{ServerName: "api.example.org"})
	open := func() *net.TCPConn {
		c := b.dial(addrPort(lab.VIP4, 90))
		_ = together(c, say)
		return c
	}
	wants := func(c net.Conn, want string) {
		t.Helper()
		name := make([]byte, 3)
		if _, err := io.ReadFull(c, name); err != nil || string(name) != want {
			t.Errorf("answer %q, want %s: %v", name, want, err)
		}
	}
	first := open()
	wants(first, "b91")
	queued := open()
	eventually(t, func() bool { return b.queued() == 1 }, "one waits")
	greeted := b.dial(addrPort(lab.VIP4, 90))
	_ = together(greeted, say[:40])
	eventually(t, func() bool { return b.inState(greeting) == 1 }, "one is greeting")
	// The backend goes from its route to the default pool.
	none := s
	none.Routes, none.Default, none.Backends = nil, false, nil
	for _, be := range s.Backends {
		if be.Name == "b91" {
			be.Route = 0
			none.Backends = append(none.Backends, be)
		}
	}
	b.apply(Config{Services: []Service{none}, DrainTimeout: time.Minute})
	eventually(t, func() bool { return b.queued() == 2 && b.inState(greeting) == 0 }, "both wait for the only backend")
	first.Close()
	wants(queued, "b91")
	queued.Close()
	wants(greeted, "b91")
	greeted.Close()
	eventually(t, func() bool { return b.proxy.Active() == 0 }, "all have ended")
	// And routes come while a header is awaited.
	none.AcceptProxy, none.ProxyTimeout = ProxyRequire, time.Hour
	b.apply(Config{Services: []Service{none}})
	c := b.dial(addrPort(lab.VIP4, 90))
	eventually(t, func() bool { return b.inState(greeting) == 1 }, "one is greeting")
	b.apply(Config{Services: []Service{s}})
	_ = together(c, append(proxyHeader(1, named(lab.VIP4, 999), addrPort(lab.VIP4, 90)), hello(&tls.Config{ServerName: "x.example.org"})...))
	wants(c, "b92")
}

// TestRouteNames has clients make up names: they cost no metric series.
func TestRouteNames(t *testing.T) {
	s := routedService("web", 90)
	s.Default, s.Backends = false, s.Backends[2:]
	b := newBedConfig(t, Config{Services: []Service{s}})
	refuse := func(i int) {
		c := b.dial(addrPort(lab.VIP4, 90))
		_ = together(c, bytes.Replace(namedHello, []byte("n00000"), fmt.Appendf(nil, "n%05d", i), 1))
		if _, err := io.ReadAll(c); err == nil {
			t.Error("no reset")
		}
		c.Close()
	}
	refuse(0)
	b.ends("web", map[Reason]uint64{NoRoute: 1})
	before := testutil.CollectAndCount(NewCollector(b.proxy))
	for i := 1; i < 10_000; i++ {
		refuse(i)
	}
	b.ends("web", map[Reason]uint64{NoRoute: 10_000})
	if n := testutil.CollectAndCount(NewCollector(b.proxy)); n != before {
		t.Errorf("%d series after 10,000 names, before %d", n, before)
	}
}

var namedHello = hello(&tls.Config{ServerName: "n00000.example.com"})
