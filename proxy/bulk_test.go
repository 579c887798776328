package proxy

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/tproxyd/tproxyd/internal/lab"
	"github.com/tproxyd/tproxyd/internal/netnstest"
	"golang.org/x/sys/unix"
)

// TestBulkAmongOthers sends 100 MiB both ways at once through one flow while
// 200 short flows come and go.
func TestBulkAmongOthers(t *testing.T) {
	const size, others = 100 << 20, 200
	families(t, lab.VIP4, lab.VIP6, func(t *testing.T, ip string) {
		m := &meeting{bed: newBed(t, vip("bulk", 80), vip("short", 81))}
		results := make(chan error, 2)
		m.server(80, func(c *net.TCPConn) { results <- bothWays(c, 2, 1, size) })
		m.server(81, echo)
		c := m.dial(addrPort(ip, 80))
		go func() { results <- bothWays(c, 1, 2, size) }()
		for i := range others {
			short := m.dial(addrPort(ip, 81))
			n := 1 + i*i
			go func() {
				_ = sendNoise(short, i, n, n)
				_ = short.CloseWrite()
			}()
			wantNoise(t, short, i, n)
			short.Close()
		}
		for range 2 {
			if err := <-results; err != nil {
				t.Error(err)
			}
		}
		c.Close()
		m.wantBooks(t)
		for _, r := range m.records.wait(t, 1+others) {
			if r.Service == "short" {
				wantReason(t, r, ClientClose)
			} else if r.BytesIn != size || r.BytesOut != size || r.PathIn != "splice" || r.PathOut != "splice" {
				t.Errorf("record has %d bytes in by %s and %d out by %s, want %d by splice",
					r.BytesIn, r.PathIn, r.BytesOut, r.PathOut, size)
			}
		}
		for side := range 2 {
			copied, spliced := m.pathBytes("bulk", side, pathCopy), m.pathBytes("bulk", side, pathSplice)
			if copied+spliced != size || spliced < size/10*9 {
				t.Errorf("%s: %d bytes copied and %d spliced, want 9 of 10 spliced and %d in all",
					directionNames[side], copied, spliced, size)
			}
		}
	})
}

// bothWays sends stream out and reads stream in at once, and ends both.
func bothWays(c *net.TCPConn, out, in, size int) error {
	var sendErr error
	var sending sync.WaitGroup
	sending.Go(func() {
		sendErr = errors.Join(sendNoise(c, out, size, 1<<20), c.CloseWrite())
	})
	n, err := readNoise(c, in)
	sending.Wait()
	if err == nil && n != size {
		err = io.ErrUnexpectedEOF
	}
	return errors.Join(err, sendErr)
}

// child runs a program in the server with the connection c as one of its
// standard streams and nowhere else, and returns what kills it.
func (m *meeting) child(t *testing.T, c *net.TCPConn, program ...string) (kill func()) {
	t.Helper()
	f, err := c.File()
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	cmd := m.Server.Command(context.Background(), program[0], program[1:]...)
	cmd.Stdin, cmd.Stdout = f, f
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
	kill = sync.OnceFunc(func() {
		if err := cmd.Process.Signal(unix.SIGKILL); err != nil {
			t.Error(err)
		}
		_ = cmd.Wait() // killed, as it should be
	})
	t.Cleanup(kill)
	return kill
}

// TestServerKilled has the server's process die in the middle of a stream. Its
// kernel goes on to send what it has, and FIN; the client gets just that.
func TestServerKilled(t *testing.T) {
	const size, half = 100 << 20, 50 << 20
	name := filepath.Join(t.TempDir(), "stream")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(sendNoise(f, 6, size, size), f.Close()); err != nil {
		t.Fatal(err)
	}
	m := meet(t)
	m.each(func(t *testing.T, m *meeting, w way) {
		seen := m.watchWire(t, lab.ServerLink)
		before := m.recorded()
		cl, srv := m.pair(w.address)
		from, to := unmapped(srv.LocalAddr()), unmapped(srv.RemoteAddr())
		kill := m.child(t, srv, "cat", name)
		if err := readNoiseN(cl, 6, 0, half); err != nil {
			t.Fatal(err)
		}
		kill()
		check := &noiseCheck{seed: 6, pos: half}
		if _, err := io.Copy(check, struct{ io.Reader }{cl}); err != nil {
			t.Errorf("client read %v, want the end of the stream", err)
		}
		cl.Close()
		if n := sentBytes(t, seen, from, to); n != check.pos {
			t.Errorf("client got %d bytes, server sent %d", check.pos, n)
		}
		if check.pos == size {
			t.Error("the server was not killed in the middle: nothing is tested")
		}
		r := m.nextRecord(t, before)
		wantReason(t, r, UpstreamClose)
		if r.BytesOut != uint64(check.pos) {
			t.Errorf("record has %d bytes out, want %d", r.BytesOut, check.pos)
		}
	})
}

// sentBytes is the length of the stream that src sent to dst, by the numbers
// of its SYN and its FIN.
func sentBytes(t *testing.T, seen *wire, src, dst netip.AddrPort) int {
	t.Helper()
	var first, last uint32
	netnstest.Eventually(t, patience, func() bool {
		syn, fin := false, false
		for _, s := range seen.from(src, dst) {
			if s.flags&flagSYN != 0 {
				syn, first = true, s.seq+1
			}
			if s.flags&flagFIN != 0 {
				fin, last = true, s.seq+uint32(s.length)
			}
		}
		return syn && fin
	}, "SYN and FIN of the server on the wire")
	return int(last - first)
}

// TestServerKilledUnread has the process die before it has read what the
// client sent: RST, which is passed on as such.
func TestServerKilledUnread(t *testing.T) {
	m := meet(t)
	m.each(func(t *testing.T, m *meeting, w way) {
		before := m.recorded()
		cl, srv := m.pair(w.address)
		kill := m.child(t, srv, "sleep", "60")
		if err := sendNoise(cl, 6, 10_000, 10_000); err != nil {
			t.Fatal(err)
		}
		netnstest.Eventually(t, patience, func() bool {
			return m.pathBytes(w.service, client, pathCopy) > 0 && m.unsent() == 0
		}, "the server's kernel has the request")
		kill()
		wantReset(t, cl)
		wantReason(t, m.nextRecord(t, before), UpstreamReset)
	})
}
