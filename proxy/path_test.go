package proxy

import (
	"io"
	"net"
	"os"
	"testing"

	"github.com/tproxyd/tproxyd/internal/netnstest"
	"github.com/tproxyd/tproxyd/internal/sys"
)

// unsent is the number of bytes that the proxy has written and its peers'
// kernels have not taken.
func (b *bed) unsent() int {
	sums := make([]int, len(b.proxy.workers))
	b.proxy.each(func(w *worker) {
		w.flows.all(func(f *flow) {
			for _, l := range f.legs {
				if l.fd >= 0 {
					n, _ := sys.Unsent(int(l.fd))
					sums[w.id] += n
				}
			}
		})
	})
	sum := 0
	for _, n := range sums {
		sum += n
	}
	return sum
}

// TestSmallExchangeIsCopied has a few bytes go by copy, and by no pipe.
func TestSmallExchangeIsCopied(t *testing.T) {
	m := meet(t)
	m.each(func(t *testing.T, m *meeting, w way) {
		before := m.recorded()
		cl, srv := m.pair(w.address)
		const rounds = 50
		for range rounds {
			exchange(t, cl, srv)
		}
		cl.Close()
		srv.Close()
		r := m.nextRecord(t, before)
		if r.BytesIn != 4*rounds || r.BytesOut != 4*rounds || r.PathIn != "copy" || r.PathOut != "copy" {
			t.Errorf("record has %d bytes in by %s and %d out by %s, want %d by copy",
				r.BytesIn, r.PathIn, r.BytesOut, r.PathOut, 4*rounds)
		}
	})
	for _, service := range []string{"web", "any"} {
		for side := range 2 {
			if n := m.pathBytes(service, side, pathSplice); n != 0 {
				t.Errorf("service %s: %d bytes spliced, want none", service, n)
			}
		}
	}
	m.proxy.each(func(w *worker) {
		if n := len(w.pipes.idle); n != 0 {
			t.Errorf("worker %d has %d pipes, want none", w.id, n)
		}
	})
}

// flowNow returns a copy of the one flow there is.
func (b *bed) flowNow() flow {
	found := make([]*flow, len(b.proxy.workers))
	b.proxy.each(func(w *worker) {
		w.flows.all(func(f *flow) {
			c := *f
			found[w.id] = &c
		})
	})
	for _, f := range found {
		if f != nil {
			return *f
		}
	}
	b.t.Fatal("no flow")
	return flow{}
}

// TestStreamAndBack has one direction of one flow be a stream, then a small
// exchange, then a stream again. A pipe is lent only while bytes flow.
func TestStreamAndBack(t *testing.T) {
	const size = 4 << 20
	m := meet(t)
	m.eachEnd(func(t *testing.T, m *meeting, w way, s side, actor, other *net.TCPConn) {
		from := s.index()
		for i := range 3 {
			before := m.pathBytes(w.service, from, pathSplice)
			go func() { _ = sendNoise(actor, i, size, size) }()
			if err := readNoiseN(other, i, 0, size); err != nil {
				t.Fatal(err)
			}
			if n := m.pathBytes(w.service, from, pathSplice) - before; n < size/2 {
				t.Errorf("stream %d: %d of %d bytes spliced, want most", i, n, size)
			}
			netnstest.Eventually(t, patience, func() bool {
				f := m.flowNow()
				return f.dirs[from].pipe == nil && f.dirs[from].buf == nil
			}, "the pipe is given back")
			for range thinSplices + 1 {
				exchange(t, actor, other)
			}
			if f := m.flowNow(); f.dirs[from].stream {
				t.Error("the direction is a stream after small messages")
			}
			copied := m.pathBytes(w.service, from, pathCopy)
			exchange(t, actor, other)
			if n := m.pathBytes(w.service, from, pathCopy) - copied; n != 4 {
				t.Errorf("%d bytes copied, want 4", n)
			}
		}
		actor.Close()
		other.Close()
	})
}

// TestIdleDescriptors counts what idle flows hold, fresh ones and such as have
// been streams: two descriptors each, and no pipe.
func TestIdleDescriptors(t *testing.T) {
	const each = 15
	const size = 1 << 20
	m := meet(t)
	start := descriptors(t)
	n := 0
	for _, w := range ways(80) {
		for range each {
			cl, srv := m.pair(w.address)
			for _, c := range []struct{ from, to *net.TCPConn }{{cl, srv}, {srv, cl}} {
				exchange(t, c.from, c.to)
				if n%2 == 0 {
					go func() { _ = sendNoise(c.from, n, size, size) }()
					if err := readNoiseN(c.to, n, 0, size); err != nil {
						t.Fatal(err)
					}
				}
			}
			n++
		}
	}
	m.proxy.each(func(w *worker) {
		if w.pipes.lent != 0 || w.stats.bufferBytes.Load() != 0 {
			t.Errorf("worker %d: %d pipes and %d buffer bytes lent to idle flows", w.id, w.pipes.lent, w.stats.bufferBytes.Load())
		}
		w.pipes.trim()
	})
	// The clients' and the servers' sockets are in this process as well.
	if got := openedSince(t, start); got != 4*n {
		t.Errorf("%d idle flows hold %d descriptors, want %d", n, got-2*n, 2*n)
	}
}

func openDescriptors(t *testing.T) int { return len(descriptors(t)) }

// openedSince counts what has been opened since before, and is still open. What
// earlier tests close late does not count.
func openedSince(t *testing.T, before map[string]bool) (n int) {
	t.Helper()
	for file := range descriptors(t) {
		if !before[file] {
			n++
		}
	}
	return n
}

// descriptors returns what is open, by descriptor and file.
func descriptors(t *testing.T) map[string]bool {
	t.Helper()
	const dir = "/proc/self/fd/"
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	open := map[string]bool{}
	for _, e := range entries {
		if file, err := os.Readlink(dir + e.Name()); err == nil { // that of the directory is closed
			open[e.Name()+" "+file] = true
		}
	}
	return open
}

// TestServerSpeaksFirst has a client that waits for a greeting.
func TestServerSpeaksFirst(t *testing.T) {
	m := meet(t)
	m.each(func(t *testing.T, m *meeting, w way) {
		cl, srv := m.pair(w.address)
		if _, err := io.WriteString(srv, "220 ready\r\n"); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, 11)
		if _, err := io.ReadFull(cl, got); err != nil || string(got) != "220 ready\r\n" {
			t.Errorf("got %q and %v, want the greeting", got, err)
		}
		exchange(t, cl, srv)
		cl.Close()
		srv.Close()
	})
}

// TestDataWithHandshake has the client's data there when its connection is
// accepted, less than the proxy reads ahead and more.
func TestDataWithHandshake(t *testing.T) {
	m := meet(t)
	m.each(func(t *testing.T, m *meeting, w way) {
		for _, size := range []int{1, 511, 512, 513, 4095, 4096, 4097, 60_000, 200_000} {
			thaw := m.freeze(nil)
			cl := m.dial(w.address)
			sent := make(chan struct{})
			go func() {
				defer close(sent)
				_ = sendNoise(cl, size, size, size)
				_ = cl.CloseWrite()
			}()
			if size <= 60_000 { // for more there is no room yet
				<-sent
				waitAcked(t, cl)
			}
			thaw()
			srv := m.accept()
			wantNoise(t, srv, size, size)
			go func() {
				_ = sendNoise(srv, 1, size, size)
				srv.Close()
			}()
			wantNoise(t, cl, 1, size)
			cl.Close()
		}
	})
}
