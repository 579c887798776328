package tap_test

import (
	"context"
	"io"
	"net"
	"net/netip"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap/zaptest"
	"golang.org/x/sys/unix"

	"github.com/tproxyd/tproxyd/internal/lab"
	"github.com/tproxyd/tproxyd/internal/netnstest"
	"github.com/tproxyd/tproxyd/ringcap/tap"
)

// patience is how long a test waits for what must come.
const patience = 30 * time.Second

// both are the interfaces of the proxy in a lab.
var both = []string{lab.ClientLink, lab.ServerLink}

// small rings are enough for tests, and quick to make.
var small = tap.Ring{BlockSize: 128 << 10, Blocks: 32}

// manage makes a Manager that is closed at the end of the test.
func manage(t *testing.T, opts tap.Options) *tap.Manager {
	t.Helper()
	opts.Log = zaptest.NewLogger(t)
	m := tap.New(opts)
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	return m
}

func apply(t *testing.T, m *tap.Manager, cfg tap.Config) {
	t.Helper()
	if cfg.Ring == (tap.Ring{}) {
		cfg.Ring = small
	}
	if cfg.Interfaces == nil {
		cfg.Interfaces = both
	}
	if err := m.Apply(cfg); err != nil {
		t.Fatal(err)
	}
}

// relay is a proxy that tells a Manager of its flows.
type relay struct {
	t       *testing.T
	m       *tap.Manager
	lab     *lab.Lab
	service string
	ids     *atomic.Uint64
	ln      net.Listener
	backend net.Listener
	wg      sync.WaitGroup
	gap     time.Duration // between connect and telling of it
}

// newRelay relays TCP to a backend that sends back what it gets.
func newRelay(t *testing.T, m *tap.Manager, l *lab.Lab, service string, ids *atomic.Uint64, gap time.Duration) *relay {
	t.Helper()
	r := &relay{t: t, m: m, lab: l, service: service, ids: ids, gap: gap}
	var err error
	if r.backend, err = l.Server.Listen("tcp", net.JoinHostPort(lab.ServerIP4, "0")); err != nil {
		t.Fatal(err)
	}
	if r.ln, err = l.Proxy.Listen("tcp", net.JoinHostPort(lab.ProxyClientIP4, "0")); err != nil {
		t.Fatal(err)
	}
	r.wg.Go(func() { accept(r.backend, echo) })
	r.wg.Go(func() { accept(r.ln, r.serve) })
	t.Cleanup(r.close)
	return r
}

func (r *relay) close() {
	_, _ = r.ln.Close(), r.backend.Close()
	r.wg.Wait()
}

func accept(ln net.Listener, serve func(net.Conn)) {
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		wg.Go(func() { serve(c) })
	}
}

func echo(c net.Conn) {
	_, _ = io.Copy(c, c)
	_ = c.Close()
}

func addrPort(a net.Addr) netip.AddrPort { return netip.MustParseAddrPort(a.String()) }

func (r *relay) serve(c net.Conn) {
	f := tap.Flow{
		ID: r.ids.Add(1), Service: r.service, Protocol: unix.IPPROTO_TCP,
		Client: addrPort(c.RemoteAddr()), Destination: addrPort(c.LocalAddr()),
	}
	r.m.Open(&f)
	f.Backend, f.Algorithm, f.Why, f.Policy = "b1", "round-robin", "its turn", "host"
	f.Upstream = addrPort(r.backend.Addr())
	r.m.Dial(&f)
	up, err := r.lab.Proxy.Dial(context.Background(), "tcp", r.backend.Addr().String())
	if err != nil {
		r.t.Error(err)
		_ = c.Close()
		return
	}
	<-time.After(r.gap)
	f.Source = addrPort(up.LocalAddr())
	r.m.Dial(&f)
	var in, out int64
	var wg sync.WaitGroup
	pump := func(n *int64, to, from net.Conn) {
		*n, _ = io.Copy(to, from)
		_ = to.(*net.TCPConn).CloseWrite()
	}
	wg.Go(func() { pump(&in, up, c) })
	wg.Go(func() { pump(&out, c, up) })
	wg.Wait()
	_, _ = c.Close(), up.Close()
	r.m.End(f.ID, uint64(in), uint64(out), "done")
}

// exchange sends so many bytes through the relay and takes them back.
func (r *relay) exchange(size int) {
	r.t.Helper()
	c, err := r.lab.Client.Dial(r.t.Context(), "tcp", r.ln.Addr().String())
	if err != nil {
		r.t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	done := make(chan int64)
	go func() {
		n, _ := io.Copy(io.Discard, c)
		done <- n
	}()
	if _, err := c.Write(make([]byte, size)); err != nil {
		r.t.Error(err)
	}
	if err := c.(*net.TCPConn).CloseWrite(); err != nil {
		r.t.Error(err)
	}
	if n := <-done; n != int64(size) {
		r.t.Errorf("%d bytes came back, want %d", n, size)
	}
}

// endpoints are the relay's.
func (r *relay) endpoints() []tap.Endpoint {
	var all []tap.Endpoint
	for _, a := range []net.Addr{r.ln.Addr(), r.backend.Addr()} {
		ap := addrPort(a)
		all = append(all, tap.Endpoint{Protocol: unix.IPPROTO_TCP, Addr: ap.Addr(), Port: ap.Port()})
	}
	return all
}

// complete are the complete files in a directory, in order.
func complete(t *testing.T, dir string) []string {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(dir, "*.pcapng"))
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(paths)
	return paths
}

// seen is a packet of a file as Wireshark shows it.
type seen struct {
	id, side, comment string
	syn, fin          bool
	len               int
	time              time.Time
	payload           string // hexadecimal, of UDP
}

// tshark reads a file, which has to be whole.
func tshark(t *testing.T, path string) (all []seen) {
	t.Helper()
	args := []string{"-n", "-r", path, "-T", "fields", "-E", "separator=|", "-E", "occurrence=f"}
	for _, f := range []string{
		"frame.packet_id", "frame.interface_name", "frame.comment", "tcp.flags.syn", "tcp.flags.fin", "frame.len", "frame.time_epoch", "udp.payload",
	} {
		args = append(args, "-e", f)
	}
	cmd := exec.CommandContext(t.Context(), netnstest.Need(t, "tshark", "tshark"), args...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil || strings.Contains(stderr.String(), "cut short") {
		t.Fatalf("tshark %s: %v: %s", path, err, &stderr)
	}
	for line := range strings.Lines(string(out)) {
		f := strings.Split(strings.TrimSuffix(line, "\n"), "|")
		sec, frac, _ := strings.Cut(f[6], ".")
		s, _ := strconv.ParseInt(sec, 10, 64)
		ns, _ := strconv.ParseInt(frac, 10, 64)
		n, err := strconv.Atoi(f[5])
		if err != nil {
			t.Fatalf("tshark printed %q", line)
		}
		all = append(all, seen{
			id: f[0], side: f[1], comment: f[2], syn: truth(f[3]), fin: truth(f[4]), len: n, time: time.Unix(s, ns), payload: f[7],
		})
	}
	return all
}

func truth(s string) bool { return s == "1" || s == "True" }

// count is how many packets match.
func count(all []seen, match func(seen) bool) (n int) {
	for _, p := range all {
		if match(p) {
			n++
		}
	}
	return n
}
