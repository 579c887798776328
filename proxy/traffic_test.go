package proxy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tproxyd/tproxyd/internal/accesslog"
	"github.com/tproxyd/tproxyd/internal/lab"
	"github.com/tproxyd/tproxyd/internal/netnstest"
	"github.com/tproxyd/tproxyd/internal/sys"
	"golang.org/x/sys/unix"
)

// noise is what streams are made of. Its length is a prime, so that a lost, a
// doubled or a swapped piece of any usual size shows.
var noise = sync.OnceValue(func() []byte {
	b := make([]byte, 65521)
	_, _ = rand.NewChaCha8([32]byte{7}).Read(b)
	return b
})

// noiseAt is a piece of the stream called seed, from the place pos on.
func noiseAt(seed, pos int) []byte {
	n := noise()
	return n[(seed*7919+pos)%len(n):]
}

// sendNoise writes n bytes of the stream called seed, in pieces of at most
// piece bytes.
func sendNoise(w io.Writer, seed, n, piece int) error {
	for pos := 0; pos < n; {
		b := noiseAt(seed, pos)
		m, err := w.Write(b[:min(len(b), piece, n-pos)])
		if err != nil {
			return fmt.Errorf("after %d of %d bytes: %w", pos, n, err)
		}
		pos += m
	}
	return nil
}

// noiseCheck is a Writer that wants to be given the stream called seed.
type noiseCheck struct{ seed, pos int }

func (c *noiseCheck) Write(p []byte) (int, error) {
	for b := p; len(b) > 0; {
		want := noiseAt(c.seed, c.pos)
		n := min(len(b), len(want))
		if !bytes.Equal(b[:n], want[:n]) {
			return 0, fmt.Errorf("stream %d differs within %d bytes of place %d", c.seed, n, c.pos)
		}
		c.pos += n
		b = b[n:]
	}
	return len(p), nil
}

// readNoise reads r to its end and returns how much of the stream called seed
// it was. The end of the stream is no error.
func readNoise(r io.Reader, seed int) (int, error) {
	check := &noiseCheck{seed: seed}
	_, err := io.CopyBuffer(check, struct{ io.Reader }{r}, make([]byte, 64<<10))
	return check.pos, err
}

// readNoiseN reads n bytes, which start at the place pos of the stream.
func readNoiseN(r io.Reader, seed, pos, n int) error {
	_, err := io.CopyBuffer(&noiseCheck{seed: seed, pos: pos}, io.LimitReader(struct{ io.Reader }{r}, int64(n)), make([]byte, 32<<10))
	return err
}

// way is one mode and one family.
type way struct {
	name, service   string
	address         netip.AddrPort // what the client connects to
	backend         netip.AddrPort // what it reaches
	client, proxyIP netip.Addr     // the client, and the proxy as its backends see it
}

// ways are both modes on both families, to be served by vip("web", port) and
// intercept().
func ways(port int) []way {
	c4, c6 := netip.MustParseAddr(lab.ClientIP4), netip.MustParseAddr(lab.ClientIP6)
	p4, p6 := netip.MustParseAddr(lab.ProxyServerIP4), netip.MustParseAddr(lab.ProxyServerIP6)
	return []way{
		{"vip-v4", "web", addrPort(lab.VIP4, port), addrPort(lab.ServerIP4, port), c4, p4},
		{"vip-v6", "web", addrPort(lab.VIP6, port), addrPort(lab.ServerIP6, port), c6, p6},
		{"intercept-v4", "any", addrPort(lab.ForeignIP4, port), addrPort(lab.ForeignIP4, port), c4, p4},
		{"intercept-v6", "any", addrPort(lab.ForeignIP6, port), addrPort(lab.ForeignIP6, port), c6, p6},
	}
}

// meeting hands out the connections that the server accepts.
type meeting struct {
	*bed
	port int
	ln   net.Listener
}

// meet makes a proxy for all ways and a server that waits to be paired.
func meet(t *testing.T, adjust ...func(*Service)) *meeting {
	t.Helper()
	web, foreign := vip("web", 80), intercept()
	for _, a := range adjust {
		a(&web)
		a(&foreign)
	}
	m := &meeting{bed: newBed(t, web, foreign), port: 80}
	ln, err := m.Server.Listen("tcp", ":80")
	if err != nil {
		t.Fatal(err)
	}
	m.ln = ln
	t.Cleanup(func() { ln.Close() })
	return m
}

// each runs test for every way, one after the other in the same lab, and
// checks the books after each.
func (m *meeting) each(test func(t *testing.T, m *meeting, w way)) {
	for _, w := range ways(m.port) {
		m.t.Run(w.name, func(t *testing.T) {
			sub, inner := *m, *m.bed
			inner.t = t
			sub.bed = &inner
			test(t, &sub, w)
			sub.wantBooks(t)
		})
	}
}

// pair makes a flow to address and returns its two ends.
func (m *meeting) pair(address netip.AddrPort) (cl, srv *net.TCPConn) {
	m.t.Helper()
	cl = m.dial(address)
	return cl, m.accept()
}

func (m *meeting) accept() *net.TCPConn {
	m.t.Helper()
	if err := m.ln.(*net.TCPListener).SetDeadline(time.Now().Add(patience)); err != nil {
		m.t.Fatal(err)
	}
	c, err := m.ln.Accept()
	if err != nil {
		m.t.Fatal(err)
	}
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	m.t.Cleanup(func() { c.Close() })
	return c.(*net.TCPConn)
}

// recorded is the number of flows that have ended so far.
func (b *bed) recorded() int {
	b.records.mu.Lock()
	defer b.records.mu.Unlock()
	return len(b.records.all)
}

// nextRecord returns the record of the flow that ends after the first n.
func (b *bed) nextRecord(t *testing.T, n int) accesslog.Record {
	t.Helper()
	return b.records.wait(t, n+1)[n]
}

// wantReason checks the end of a flow as operators see it.
func wantReason(t *testing.T, r accesslog.Record, want Reason) {
	t.Helper()
	if r.Reason != want.String() || r.Term != want.Term() {
		t.Errorf("record says %s %s, want %s %s", r.Reason, r.Term, want, want.Term())
	}
}

// wantBooks waits until no flow is left and checks that nothing lent is out
// and that each accepted flow ended once.
func (b *bed) wantBooks(t *testing.T) {
	t.Helper()
	netnstest.Eventually(t, patience, func() bool { return b.proxy.Active() == 0 }, "no flow left")
	b.proxy.each(func(*worker) {}) // end has returned
	for _, s := range b.proxy.view.Load().stats {
		accepted := s.total(func(sh *shard) uint64 { return sh.accepted.Load() })
		closed := s.total(func(sh *shard) (n uint64) {
			for i := range sh.closed {
				n += sh.closed[i].Load()
			}
			return n
		})
		if accepted != closed || s.active.Load() != 0 {
			t.Errorf("service %s: %d flows accepted, %d ended, %d active", s.name, accepted, closed, s.active.Load())
		}
		for name, totals := range s.backends {
			for i, sh := range totals.shards {
				if n := sh.active.Load(); n != 0 {
					t.Errorf("service %s, backend %s, worker %d: %d active after the end", s.name, name, i, n)
				}
			}
		}
	}
	b.proxy.each(func(w *worker) {
		if w.flows.live != 0 || w.pipes.lent != 0 || w.stats.flows.Load() != 0 ||
			w.stats.pipesLent.Load() != 0 || w.stats.bufferBytes.Load() != 0 {
			t.Errorf("worker %d: %d flows, %d pipes lent, %d buffer bytes after the end",
				w.id, w.flows.live, w.pipes.lent, w.stats.bufferBytes.Load())
		}
	})
	if n := b.proxy.guard.n.Load(); n != 0 {
		t.Errorf("%d sources left in the loop guard", n)
	}
}

// pathBytes is what a service has relayed in one direction by one path.
func (b *bed) pathBytes(service string, side, path int) uint64 {
	for _, s := range b.proxy.view.Load().stats {
		if s.name == service {
			return s.total(func(sh *shard) uint64 { return sh.bytes[side][path].Load() })
		}
	}
	b.t.Errorf("no service %s", service)
	return 0
}

// freeze keeps all workers from working until the function that it returns is
// called, so that what peers do meanwhile comes to them at once. Each worker
// then runs after, if that is not nil, before it hears of any event.
func (b *bed) freeze(after func(*worker)) (thaw func()) {
	gate := make(chan struct{})
	var frozen, thawed sync.WaitGroup
	for _, w := range b.proxy.workers {
		frozen.Add(1)
		thawed.Add(1)
		if !w.loop.Post(func() {
			defer thawed.Done()
			frozen.Done()
			<-gate
			if after != nil {
				after(w)
			}
		}) {
			b.t.Fatalf("worker %d has ended", w.id)
		}
	}
	frozen.Wait()
	thaw = sync.OnceFunc(func() {
		close(gate)
		thawed.Wait()
	})
	b.t.Cleanup(thaw)
	return thaw
}

// control calls fn with the descriptor of c.
func control(t testing.TB, c *net.TCPConn, fn func(fd int) error) {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var inner error
	if err := raw.Control(func(fd uintptr) { inner = fn(int(fd)) }); err != nil {
		t.Fatal(err)
	}
	if inner != nil {
		t.Fatal(inner)
	}
}

// abort closes c with RST.
func abort(c *net.TCPConn) {
	_ = c.SetLinger(0)
	c.Close()
}

// waitAcked waits until the peer's kernel has all that was written to c.
func waitAcked(t *testing.T, c *net.TCPConn) {
	t.Helper()
	netnstest.Eventually(t, patience, func() bool {
		left := -1
		control(t, c, func(fd int) error {
			n, e := sys.Unsent(fd)
			if e != 0 {
				return e
			}
			left = n
			return nil
		})
		return left == 0
	}, "everything written is acknowledged")
}

// wantReset checks that c ends in RST, with nothing before it.
func wantReset(t *testing.T, c net.Conn) {
	t.Helper()
	n, err := c.Read(make([]byte, 1))
	if n != 0 || !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("read %d bytes and %v, want connection reset", n, err)
	}
}

// dialReusing connects the client from local, whose port may be in use by
// another of its connections.
func (b *bed) dialReusing(local, address netip.AddrPort) (*net.TCPConn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	d := net.Dialer{
		LocalAddr: net.TCPAddrFromAddrPort(local),
		Control: func(_, _ string, raw syscall.RawConn) error {
			var inner error
			err := raw.Control(func(fd uintptr) {
				inner = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
			})
			return errors.Join(err, inner)
		},
	}
	for {
		c, err := b.Client.DialConfig(ctx, d, "tcp", address.String())
		switch {
		case err == nil:
			_ = c.SetDeadline(time.Now().Add(time.Minute))
			b.t.Cleanup(func() { c.Close() })
			return c.(*net.TCPConn), nil
		case errors.Is(err, unix.EADDRNOTAVAIL) && ctx.Err() == nil:
			// The client's own previous connection has not ended yet.
			time.Sleep(time.Millisecond) //nolint:forbidigo // polls
		default:
			return nil, err
		}
	}
}
