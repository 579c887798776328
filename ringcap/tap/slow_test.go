package tap_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tproxyd/tproxyd/internal/lab"
	"github.com/tproxyd/tproxyd/internal/netnstest"
	"github.com/tproxyd/tproxyd/ringcap/tap"
)

// screen is a viewer's writer, which can be held still.
type screen struct {
	hold sync.Mutex
	mu   sync.Mutex
	buf  bytes.Buffer
}

func (s *screen) Write(b []byte) (int, error) {
	s.hold.Lock()
	defer s.hold.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.buf.Write(b)
}

func (s *screen) bytes() []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return bytes.Clone(s.buf.Bytes())
}

// watch runs a viewer until it is ended.
func watch(t *testing.T, m *tap.Manager, q tap.Query, s *screen) (end func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- m.Live(ctx, q, s) }()
	netnstest.Eventually(t, patience, func() bool { return len(s.bytes()) > 0 }, "stream begins")
	return func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

// TestSlowViewer holds a viewer still: it loses blocks, is told so in its
// stream, and nobody else loses anything.
func TestSlowViewer(t *testing.T) {
	l := netnstest.New(t)
	m := manage(t, tap.Options{})
	dir := t.TempDir()
	apply(t, m, tap.Config{Captures: []tap.Capture{{Name: "all", Directory: dir}}})
	s := newStream(t, m, l, 1, "dns", lab.ProxyClientIP4)
	slow, quick := &screen{}, &screen{}
	endSlow := watch(t, m, tap.Query{Name: "slow"}, slow)
	endQuick := watch(t, m, tap.Query{Name: "quick"}, quick)
	slow.hold.Lock()
	stats := func(name string) tap.CaptureStats {
		for _, v := range m.Stats().Viewers {
			if v.Name == name {
				return v
			}
		}
		return tap.CaptureStats{}
	}
	// In pieces, as the kernel must not be faster than the reader.
	netnstest.Eventually(t, patience, func() bool {
		s.send(100, 1000)
		netnstest.Eventually(t, patience, func() bool { return stats("quick").Packets == uint64(s.sent) }, "quick viewer sees all")
		return stats("slow").SinkDrops > 0
	}, "slow viewer loses something")
	slow.hold.Unlock()
	s.send(10, 1000)
	netnstest.Eventually(t, patience, func() bool {
		v := stats("slow")
		return v.Packets+v.SinkDrops == uint64(s.sent)
	}, "every packet is written or counted")
	lost := stats("slow").SinkDrops
	endSlow()
	endQuick()
	if err := m.Stop("all"); err != nil {
		t.Fatal(err)
	}
	inOrder(t, numbers(t, tshark(t, complete(t, dir)[0]), "1"), 0, s.sent)
	for name, x := range map[string]*screen{"slow": slow, "quick": quick} {
		path := filepath.Join(t.TempDir(), name+".pcapng")
		if err := os.WriteFile(path, x.bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
		got := numbers(t, tshark(t, path), "1")
		if name == "quick" {
			inOrder(t, got, 0, s.sent)
			continue
		}
		if len(got)+int(lost) != s.sent || got[len(got)-1] != s.sent-1 {
			t.Errorf("slow viewer has %d packets of %d and lost %d", len(got), s.sent, lost)
		}
		if !bytes.Contains(x.bytes(), []byte("were lost here")) {
			t.Error("the stream does not say that something was lost")
		}
	}
	if v := m.Stats().Viewed; v.SinkDrops != lost {
		t.Errorf("%d sink drops of viewers that have ended, want %d", v.SinkDrops, lost)
	}
}

// TestDiskFull fills the disk under a capture. The other capture goes on; the
// first goes on when there is room, and its file says what it lost.
func TestDiskFull(t *testing.T) {
	l := netnstest.New(t)
	m := manage(t, tap.Options{})
	dir, other := t.TempDir(), t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=4M"); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Unmount(dir, unix.MNT_DETACH) }()
	ballast := filepath.Join(dir, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 3<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	apply(t, m, tap.Config{Captures: []tap.Capture{{Name: "full", Directory: dir}, {Name: "other", Directory: other}}})
	s := newStream(t, m, l, 1, "dns", lab.ProxyClientIP4)
	of := func(name string) tap.CaptureStatus {
		for _, c := range m.List() {
			if c.Capture.Name == name {
				return c
			}
		}
		t.Fatal("no capture", name)
		return tap.CaptureStatus{}
	}
	netnstest.Eventually(t, patience, func() bool {
		s.send(100, 1000)
		netnstest.Eventually(t, patience, func() bool { return of("other").Packets == uint64(s.sent) }, "other capture has all")
		c := of("full")
		return c.SinkDrops > 0 && errors.Is(c.LastError, unix.ENOSPC)
	}, "disk full")
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	netnstest.Eventually(t, patience, func() bool {
		c := of("full")
		return c.LastError == nil && c.Packets+c.SinkDrops == uint64(s.sent)
	}, "capture goes on")
	want := of("full").Packets
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	path := complete(t, dir)[0]
	if got := len(tshark(t, path)); got != int(want) {
		t.Errorf("%d packets in the file, want %d", got, want)
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{"lost, as writing was too slow", "no space left on device"} {
		if !bytes.Contains(raw, []byte(part)) {
			t.Errorf("the file does not say %q", part)
		}
	}
	if got := len(tshark(t, complete(t, other)[0])); got != s.sent {
		t.Errorf("%d packets in the other file, want %d", got, s.sent)
	}
}
