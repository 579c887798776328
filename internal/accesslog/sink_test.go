package accesslog_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tproxyd/tproxyd/internal/accesslog"
	"github.com/tproxyd/tproxyd/internal/netnstest"
)

// start runs a sink; stop ends it and waits until Run has returned.
func start(t *testing.T, cfg accesslog.Config) (s *accesslog.Sink, stop func()) {
	t.Helper()
	s, err := accesslog.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- s.Run(ctx) }()
	return s, func() {
		t.Helper()
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	}
}

// batch returns n records in a batch of s.
func batch(s *accesslog.Sink, n int) []accesslog.Record {
	b := s.Get()
	for i := range n {
		r := full()
		r.FlowID = uint64(i)
		b = append(b, r)
	}
	return b
}

// chunks remembers every write.
type chunks []string

func (c *chunks) Write(p []byte) (int, error) {
	*c = append(*c, string(p))
	return len(p), nil
}

func TestSinkWritesWholeLines(t *testing.T) {
	for format, appendRecord := range formats {
		var got chunks
		s, stop := start(t, accesslog.Config{W: &got, Format: format})
		long := batch(s, 100)
		long[50].Service = strings.Repeat("l", 10_000)
		var want []byte
		for i := range long {
			want = append(appendRecord(want, &long[i]), '\n')
		}
		if !s.Offer(long) {
			t.Fatal("batch refused by an empty queue")
		}
		if !s.Offer(s.Get()) {
			t.Fatal("empty batch refused by an empty queue")
		}
		stop()
		if strings.Join(got, "") != string(want) {
			t.Errorf("%s: wrote\n%s\nwant\n%s", format, strings.Join(got, ""), want)
		}
		for _, c := range got {
			if !strings.HasSuffix(c, "\n") || len(c) > 4096 && strings.Count(c, "\n") > 1 {
				t.Errorf("%s: a write of %d bytes and %d lines, ends %q", format, len(c), strings.Count(c, "\n"), c[len(c)-1:])
			}
		}
		if s.Written() != 100 || s.Dropped() != 0 {
			t.Errorf("%s: written %d, dropped %d of 100", format, s.Written(), s.Dropped())
		}
		if s.Offer(batch(s, 3)) || s.Dropped() != 3 {
			t.Errorf("%s: after Run: batch accepted or not counted (%d)", format, s.Dropped())
		}
	}
}

func TestSinkReusesBatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, stop := start(t, accesslog.Config{W: io.Discard, Batch: 8})
		first := batch(s, 8)
		if cap(first) != 8 {
			t.Errorf("cap of a batch %d, want 8", cap(first))
		}
		if !s.Offer(first) {
			t.Fatal("batch refused by an empty queue")
		}
		synctest.Wait()
		again := s.Get()
		if len(again) != 0 || &again[:1][0] != &first[0] {
			t.Errorf("got a batch of %d records, want the written one, empty", len(again))
		}
		stop()
	})
}

// A writer that hangs costs records, never the time of a worker, and ends the
// run late but in bounded time.
func TestSinkHangingWriter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, w := io.Pipe()
		s, stop := start(t, accesslog.Config{W: w, Queue: 4, DrainTimeout: 5 * time.Second})
		const offers, each = 20, 10
		accepted := 0
		var again []accesslog.Record
		for range offers {
			synctest.Wait() // the first batch is in the writer, which hangs
			b := batch(s, each)
			if s.Offer(b) {
				accepted++
			} else {
				again = b
			}
		}
		if accepted != 1+4 {
			t.Errorf("%d batches accepted, want one in the writer and 4 in the queue", accepted)
		}
		if want := uint64((offers - accepted) * each); s.Dropped() != want {
			t.Errorf("%d records dropped, want %d", s.Dropped(), want)
		}
		if again[0].Service != full().Service {
			t.Error("a refused batch was touched")
		}
		begin := time.Now()
		stop()
		if got := time.Since(begin); got != 5*time.Second {
			t.Errorf("shutdown took %v of a limit of 5s", got)
		}
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if got := s.Written() + s.Dropped(); got != offers*each {
			t.Errorf("written %d + dropped %d, offered %d", s.Written(), s.Dropped(), offers*each)
		}
	})
}

func TestSinkFullPipe(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close() //nolint:errcheck // only read
	s, stop := start(t, accesslog.Config{W: w, Queue: 2, DrainTimeout: time.Millisecond})
	const workers, batches, each = 4, 50, 64
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for range batches {
				s.Offer(batch(s, each)) // must return although nothing is ever read
			}
		})
	}
	wg.Wait()
	stop()
	if s.Dropped() == 0 {
		t.Error("nothing dropped by a pipe that nobody reads")
	}
	// The reader comes back, takes what is in the pipe and lets the write that
	// hangs go on. Lines are whole.
	lines := make(chan uint64)
	go func() {
		data, _ := io.ReadAll(r)
		for line := range bytes.Lines(data) {
			if !bytes.HasPrefix(line, []byte(`{"time"`)) || !bytes.HasSuffix(line, []byte("}\n")) {
				t.Errorf("torn line %q", line)
			}
		}
		lines <- uint64(bytes.Count(data, []byte("\n")))
	}()
	netnstest.Eventually(t, 10*time.Second, func() bool {
		return s.Written()+s.Dropped() == workers*batches*each
	}, "written + dropped = offered")
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if got := <-lines; got != s.Written() || got == 0 {
		t.Errorf("%d lines read, %d written", got, s.Written())
	}
}

// failing fails while err is set.
type failing struct{ err error }

func (f *failing) Write(p []byte) (int, error) { return len(p), f.err }

func TestSinkTellsErrorsOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &failing{err: syscall.EPIPE}
		var told []error
		s, stop := start(t, accesslog.Config{W: w, OnError: func(err error) { told = append(told, err) }})
		offer := func(err error) {
			w.err = err
			s.Offer(batch(s, 10))
			synctest.Wait()
		}
		offer(syscall.EPIPE)
		offer(syscall.EPIPE)
		offer(nil)
		offer(syscall.ENOSPC)
		stop()
		if len(told) != 2 || !errors.Is(told[0], syscall.EPIPE) || !errors.Is(told[1], syscall.ENOSPC) {
			t.Errorf("told %v, want EPIPE and ENOSPC, once each", told)
		}
		if s.Written() != 10 || s.Dropped() != 30 {
			t.Errorf("written %d, dropped %d, want 10 and 30", s.Written(), s.Dropped())
		}
	})
}

func TestNewRefuses(t *testing.T) {
	if _, err := accesslog.New(accesslog.Config{}); err == nil {
		t.Error("no writer: no error")
	}
	if _, err := accesslog.New(accesslog.Config{W: io.Discard, Format: "off"}); err == nil {
		t.Error("unknown format: no error")
	}
}

func TestOfferAllocatesNothing(t *testing.T) {
	w := make(gate)
	s, stop := start(t, accesslog.Config{W: w, Batch: 4})
	rec := full()
	got := testing.AllocsPerRun(100, func() {
		if !s.Offer(append(s.Get(), rec)) {
			t.Error("batch refused by an empty queue")
		}
		<-w // written
	})
	stop()
	// A batch comes back to the pool after the write that opened the gate. If
	// that is too late for the next round, two are in use from then on.
	if got != 0 {
		t.Errorf("%v allocations for a batch, want none", got)
	}
}

// gate tells of every write.
type gate chan struct{}

func (g gate) Write(p []byte) (int, error) {
	g <- struct{}{}
	return len(p), nil
}

func BenchmarkOffer(b *testing.B) {
	s, err := accesslog.New(accesslog.Config{W: io.Discard})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(b.Context())
	done := make(chan error)
	go func() { done <- s.Run(ctx) }()
	rec := full()
	cur := s.Get()
	b.ReportAllocs()
	for b.Loop() {
		if cur = append(cur, rec); len(cur) < cap(cur) {
			continue
		}
		if s.Offer(cur) {
			cur = s.Get()
		} else {
			cur = cur[:0]
		}
	}
	cancel()
	if err := <-done; err != nil {
		b.Fatal(err)
	}
}
