package proxy

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/tproxyd/tproxyd/internal/netnstest"
)

// TestSlowReaders has all readers stop at once: the senders are blocked, and
// no flow holds more than one pipe or one buffer for it. Then they read on and
// get every byte. With few pipes most of the flows have to do without.
func TestSlowReaders(t *testing.T) {
	for _, pipes := range []int{maxPipes, 2} {
		t.Run(fmt.Sprintf("pipes=%d", pipes), func(t *testing.T) {
			m := meet(t)
			m.smallReceiveBuffers(t)
			m.proxy.each(func(w *worker) { w.pipes.max = pipes })
			testSlowReaders(t, m, pipes)
			m.wantBooks(t)
		})
	}
}

func testSlowReaders(t *testing.T, m *meeting, pipes int) {
	const each = 2 // flows of each way and direction
	// More than the kernel's buffers of a sender, the proxy and a reader that
	// takes nothing grow to: tcp_wmem twice and tcp_rmem.
	const size = 16 << 20
	var readers, writers []*net.TCPConn
	for range each {
		for _, w := range ways(80) {
			for side := range 2 {
				cl, srv := m.pair(w.address)
				ends := [2]*net.TCPConn{cl, srv}
				writers, readers = append(writers, ends[side]), append(readers, ends[1-side])
				if err := ends[1-side].SetReadBuffer(16 << 10); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	var finished atomic.Int64
	errs := make([]error, len(writers))
	var sending sync.WaitGroup
	for i, c := range writers {
		sending.Go(func() {
			errs[i] = errors.Join(sendNoise(c, i, size, 64<<10), c.CloseWrite())
			finished.Add(1)
		})
	}
	var others string
	defer func() {
		if t.Failed() {
			t.Logf("flows that do not wait for their readers: %s", others)
		}
	}()
	netnstest.Eventually(t, patience, func() bool {
		n, o := m.blocked()
		others = o
		return n == len(readers)
	}, "all flows wait for their readers")
	m.proxy.each(func(w *worker) {
		lent, held := int64(w.pipes.lent), w.stats.bufferBytes.Load()
		if flows := int64(w.flows.live); held > flows*bufferSize || lent > flows || lent*bufferSize+held > flows*bufferSize {
			t.Errorf("worker %d: %d flows hold %d pipes and %d buffer bytes, want one pipe or %d bytes each", w.id, flows, lent, held, bufferSize)
		}
		if w.pipes.lent+len(w.pipes.idle) > pipes {
			t.Errorf("worker %d has %d pipes, want at most %d", w.id, w.pipes.lent+len(w.pipes.idle), pipes)
		}
	})
	if n := finished.Load(); n != 0 {
		t.Errorf("%d of %d senders were not blocked", n, len(writers))
	}
	done := make([]chan error, len(readers))
	for i, c := range readers {
		done[i] = make(chan error, 1)
		go func() {
			n, err := readNoise(c, i)
			if err == nil && n != size {
				err = fmt.Errorf("%d of %d bytes: %w", n, size, io.ErrUnexpectedEOF)
			}
			c.Close()
			done[i] <- err
		}()
	}
	for i := range done {
		if err := <-done[i]; err != nil {
			t.Errorf("reader %d: %v", i, err)
		}
	}
	sending.Wait()
	for i, c := range writers {
		if errs[i] != nil {
			t.Errorf("writer %d: %v", i, errs[i])
		}
		c.Close()
	}
}

// smallReceiveBuffers bounds the memory in which the proxy's kernel keeps what
// is not read yet, until the test is over.
func (b *bed) smallReceiveBuffers(t *testing.T) {
	t.Helper()
	const key = "ipv4/tcp_rmem" // and IPv6's
	before, err := os.ReadFile("/proc/sys/net/" + key)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Proxy.Sysctl(key, string(before)); err != nil {
			t.Error(err)
		}
	})
	if err := b.Proxy.Sysctl(key, "4096 131072 1048576"); err != nil {
		t.Fatal(err)
	}
}

// blocked is the number of flows that hold bytes which their reader does not
// take, and a description of the other flows.
func (b *bed) blocked() (n int, others string) {
	counts := make([]int, len(b.proxy.workers))
	texts := make([]string, len(b.proxy.workers))
	b.proxy.each(func(w *worker) {
		w.flows.all(func(f *flow) {
			for side := range f.dirs {
				if f.dirs[side].pending() && !f.legs[1-side].writable {
					counts[w.id]++
					return
				}
			}
			texts[w.id] += fmt.Sprintf("\nworker %d: state %d, legs %+v, directions %+v", w.id, f.state, f.legs, f.dirs)
		})
	})
	for i := range counts {
		n += counts[i]
		others += texts[i]
	}
	return n, others
}
