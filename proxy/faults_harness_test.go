package proxy

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/tproxyd/tproxyd/internal/accesslog"
	"github.com/tproxyd/tproxyd/internal/lab"
	"github.com/tproxyd/tproxyd/internal/netnstest"
	"github.com/tproxyd/tproxyd/internal/rules"
	"golang.org/x/sys/unix"
)

// ends waits until the service has no flow left, and wants its flows to have
// ended for these reasons and no others.
func (b *bed) ends(service string, want map[Reason]uint64) {
	b.t.Helper()
	wantEnds(b.t, b.proxy, service, want)
}

func wantEnds(t *testing.T, p *Proxy, service string, want map[Reason]uint64) {
	t.Helper()
	s := serviceStatsOf(t, p, service)
	var all uint64
	for _, n := range want {
		all += n
	}
	closed := func() uint64 {
		return s.total(func(sh *shard) uint64 {
			var n uint64
			for i := range sh.closed {
				n += sh.closed[i].Load()
			}
			return n
		})
	}
	deadline := time.Now().Add(patience)
	for (closed() < all || s.active.Load() != 0) && time.Now().Before(deadline) {
		time.Sleep(time.Millisecond) //nolint:forbidigo // polls
	}
	got := map[Reason]uint64{}
	for r := range reasonCount {
		if n := s.total(func(sh *shard) uint64 { return sh.closed[r].Load() }); n > 0 {
			got[r] = n
		}
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("ends of service %s, -want +got:\n%s", service, d)
	}
	accepted := s.total(func(sh *shard) uint64 { return sh.accepted.Load() })
	if n := closed(); accepted != n || s.active.Load() != 0 {
		t.Errorf("service %s: accepted %d, closed %d, active %d", service, accepted, n, s.active.Load())
	}
	for name, bt := range s.snapshot() {
		for _, sh := range bt.shards {
			if n := sh.active.Load(); n != 0 {
				t.Errorf("service %s, backend %s: %d active after all have ended", service, name, n)
			}
		}
	}
}

func serviceStatsOf(t *testing.T, p *Proxy, service string) *serviceStats {
	t.Helper()
	for _, s := range p.view.Load().stats {
		if s.name == service {
			return s
		}
	}
	t.Fatalf("no service %s", service)
	return nil
}

// tries are the results of the tries to connect to a backend.
func (b *bed) tries(service, backend string) map[string]uint64 {
	b.t.Helper()
	got := map[string]uint64{}
	for _, sh := range serviceStatsOf(b.t, b.proxy, service).backend(backend).shards {
		for r := range resultCount {
			if n := sh.results[r].Load(); n > 0 {
				got[resultNames[r]] += n
			}
		}
	}
	return got
}

func (b *bed) wantTries(service, backend string, want map[string]uint64) {
	b.t.Helper()
	if d := cmp.Diff(want, b.tries(service, backend)); d != "" {
		b.t.Errorf("tries of %s/%s, -want +got:\n%s", service, backend, d)
	}
}

// wantRST reads c to its end, which must be a RST and nothing before it.
func wantRST(t *testing.T, c net.Conn) {
	t.Helper()
	got, err := io.ReadAll(c)
	if !errors.Is(err, unix.ECONNRESET) || len(got) > 0 {
		t.Errorf("%v: read %q and %v, want nothing and a reset", c.LocalAddr(), got, err)
	}
}

// wantRefused connects to an address and wants a reset, which may come before
// the dialler is back.
func (b *bed) wantRefused(to netip.AddrPort) {
	b.t.Helper()
	c, err := b.tryDial(to)
	if err == nil {
		wantRST(b.t, c)
	} else if !errors.Is(err, unix.ECONNRESET) {
		b.t.Errorf("connect to %v: %v, want a reset", to, err)
	}
}

// ping sends a word and wants it back.
func ping(c net.Conn) error {
	const word = "ping"
	if _, err := io.WriteString(c, word); err != nil {
		return err
	}
	got := make([]byte, len(word))
	if _, err := io.ReadFull(c, got); err != nil {
		return err
	}
	if string(got) != word {
		return fmt.Errorf("got %q back", got)
	}
	return nil
}

func mustPing(t *testing.T, c net.Conn) {
	t.Helper()
	if err := ping(c); err != nil {
		t.Fatalf("%v to %v: %v", c.LocalAddr(), c.RemoteAddr(), err)
	}
}

// record returns the only access record, once it is there.
func (b *bed) record() accesslog.Record {
	b.t.Helper()
	all := b.records.wait(b.t, 1)
	if len(all) != 1 {
		b.t.Fatalf("%d access records, want 1", len(all))
	}
	return all[0]
}

// eventually is netnstest.Eventually with this package's patience.
func eventually(t *testing.T, cond func() bool, msg string) {
	t.Helper()
	netnstest.Eventually(t, patience, cond, msg)
}

// pool returns one backend for each address of the server's family of ip, at
// the given ports.
func pool(ip string, ports ...int) []Backend {
	server := lab.ServerIP4
	if netip.MustParseAddr(ip).Is6() {
		server = lab.ServerIP6
	}
	var all []Backend
	for _, p := range ports {
		all = append(all, Backend{Name: fmt.Sprintf("b%d", p), Addr: addrPort(server, p), Weight: 1})
	}
	return all
}

// bothPools returns the server's port in both families.
func bothPools(port int) []Backend {
	all := append(pool(lab.VIP4, port), pool(lab.VIP6, port)...)
	all[1].Name += "-v6"
	return all
}

// socketError waits a little and takes the pending error of c.
func socketError(c *net.TCPConn) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var e int
	if cerr := raw.Control(func(fd uintptr) { e, err = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ERROR) }); cerr != nil {
		return cerr
	}
	if err == nil && e != 0 {
		err = unix.Errno(e)
	}
	time.Sleep(time.Millisecond) //nolint:forbidigo // gives the RST time to leave
	return err
}

// divert adds the rules that bring traffic to transparent sockets, as newBed
// does.
func (b *bed) divert() {
	b.t.Helper()
	if err := rules.Apply(rules.Plan{}); err != nil {
		b.t.Fatal(err)
	}
}
