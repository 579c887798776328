package files_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gopacket/gopacket/pcapgo"
	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"

	"github.com/tproxyd/tproxyd/internal/netnstest"
	"github.com/tproxyd/tproxyd/ringcap/files"
	"github.com/tproxyd/tproxyd/ringcap/pcapng"
)

const patience = 30 * time.Second

func config(dir string) files.Config {
	return files.Config{
		Dir: dir, Prefix: "test", Retry: 5 * time.Millisecond,
		Header: func(dst []byte) []byte {
			return pcapng.AppendInterface(pcapng.AppendSection(dst, pcapng.Section{Application: "test"}), pcapng.Interface{Name: "eth0"})
		},
		Trailer: func(dst []byte, f files.File) []byte {
			comment := ""
			if f.LastError != nil {
				comment = fmt.Sprintf("%d errors: %v", f.Errors, f.LastError)
			}
			return pcapng.AppendStatistics(dst, pcapng.Statistics{Start: f.Start, Stop: f.End, Delivered: uint64(f.Packets), Comment: comment})
		},
	}
}

func newWriter(t *testing.T, cfg files.Config) *files.Writer {
	t.Helper()
	w, err := files.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// run is packets with the numbers from first on.
func run(first, n, size int) []byte {
	var out []byte
	for i := range n {
		data := make([]byte, max(size, 8))
		binary.BigEndian.PutUint64(data, uint64(first+i))
		out = pcapng.AppendPacket(out, &pcapng.Packet{Data: data, Nanos: int64(first + i)})
	}
	return out
}

// numbers reads the packets of all complete files in a directory.
func numbers(t *testing.T, dir string) (all []uint64, perFile []int) {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(dir, "*.pcapng*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range paths {
		got := numbersOf(t, path)
		all, perFile = append(all, got...), append(perFile, len(got))
	}
	return all, perFile
}

func numbersOf(t *testing.T, path string) (all []uint64) {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var in io.Reader = bytes.NewReader(raw)
	if strings.HasSuffix(path, ".zst") {
		z, err := zstd.NewReader(in)
		if err != nil {
			t.Fatal(err)
		}
		defer z.Close()
		in = z
	}
	r, err := pcapgo.NewNgReader(in, pcapgo.DefaultNgReaderOptions)
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	for {
		b, _, err := r.ReadPacketData()
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		all = append(all, binary.BigEndian.Uint64(b))
	}
}

func checkAll(t *testing.T, got []uint64, n int) {
	t.Helper()
	if len(got) != n {
		t.Errorf("%d packets in the files, want %d", len(got), n)
	}
	for i, v := range got {
		if v != uint64(i) {
			t.Fatalf("packet %d has number %d", i, v)
		}
	}
}

// TestRotation rotates by each limit and by all: nothing is lost or twice at a
// boundary, and no limit is exceeded.
func TestRotation(t *testing.T) {
	for _, tt := range []struct {
		name     string
		bytes    int64
		packets  int64
		duration time.Duration
	}{
		{"none", 0, 0, 0},
		{"bytes", 20_000, 0, 0},
		{"packets", 0, 7, 0},
		{"duration", 0, 0, 10 * time.Second},
		{"all", 20_000, 30, 10 * time.Second},
		{"one packet", 0, 1, 0},
		{"smaller than a packet", 2 * files.TrailerSize, 0, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			now := time.Unix(1_700_000_000, 0)
			cfg := config(dir)
			cfg.MaxBytes, cfg.MaxPackets, cfg.MaxDuration = tt.bytes, tt.packets, tt.duration
			cfg.Now = func() time.Time { return now }
			w := newWriter(t, cfg)
			n := 0
			for _, burst := range []int{1, 50, 3, 100, 1, 46} {
				size := 200
				if tt.name == "smaller than a packet" {
					size = 10_000
				}
				if err := w.Write(t.Context(), run(n, burst, size), burst); err != nil {
					t.Fatal(err)
				}
				n += burst
				now = now.Add(4 * time.Second)
			}
			if err := w.Close(t.Context()); err != nil {
				t.Fatal(err)
			}
			all, perFile := numbers(t, dir)
			checkAll(t, all, n)
			if (len(perFile) > 1) != (tt.name != "none") {
				t.Errorf("%d files", len(perFile))
			}
			for _, k := range perFile {
				if tt.packets > 0 && int64(k) > tt.packets {
					t.Errorf("%d packets in a file, limit %d", k, tt.packets)
				}
			}
			if s := w.Stats(); s.Packets != int64(n) || s.Files != int64(len(perFile)) || s.Errors != 0 {
				t.Errorf("stats %+v", s)
			}
			sizes(t, dir, tt.bytes, tt.name == "smaller than a packet")
		})
	}
}

func sizes(t *testing.T, dir string, limit int64, one bool) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			t.Fatal(err)
		}
		if limit > 0 && info.Size() > limit && !one {
			t.Errorf("%s has %d bytes, limit %d", e.Name(), info.Size(), limit)
		}
	}
}

// TestExpire ends a file on a quiet link.
func TestExpire(t *testing.T) {
	dir := t.TempDir()
	now := time.Unix(1_700_000_000, 0)
	cfg := config(dir)
	cfg.MaxDuration, cfg.Now = time.Second, func() time.Time { return now }
	w := newWriter(t, cfg)
	if err := w.Write(t.Context(), run(0, 1, 60), 1); err != nil {
		t.Fatal(err)
	}
	for i, want := range []int{0, 1, 1} {
		if err := w.Expire(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, perFile := numbers(t, dir); len(perFile) != want && i > 0 {
			t.Errorf("step %d: %d complete files, want %d", i, len(perFile), want)
		}
		now = now.Add(time.Second)
	}
	if err := w.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// TestKeep writes many files and keeps few, in every way there is.
func TestKeep(t *testing.T) {
	for _, tt := range []struct {
		name string
		set  func(*files.Config)
		want int
	}{
		{"number", func(c *files.Config) { c.KeepFiles = 3 }, 3},
		{"bytes", func(c *files.Config) { c.KeepBytes = 5000 }, 3},
		{"compressed", func(c *files.Config) { c.KeepFiles = 4; c.Compress = true }, 4},
		{"recycled", func(c *files.Config) { c.KeepFiles = 3; c.Recycle = true }, 3},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			other := filepath.Join(dir, "test-of-another-20260101T000000.000Z-000001.pcapng")
			stale := filepath.Join(dir, "test-20200101T000000.000Z-000001.pcapng.tmp")
			for _, path := range []string{other, stale} {
				if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			cfg := config(dir)
			cfg.MaxPackets = 10
			tt.set(&cfg)
			w := newWriter(t, cfg)
			if err := w.Write(t.Context(), run(0, 100, 150), 100); err != nil {
				t.Fatal(err)
			}
			// The last file is shorter than the one whose place it takes.
			if err := w.Write(t.Context(), run(100, 5, 8), 5); err != nil {
				t.Fatal(err)
			}
			if err := w.Close(t.Context()); err != nil {
				t.Fatal(err)
			}
			if _, err := os.Stat(stale); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("unfinished file of an earlier run: %v", err)
			}
			if err := os.Remove(other); err != nil {
				t.Error(err)
			}
			all, perFile := numbers(t, dir)
			if len(perFile) != tt.want || perFile[len(perFile)-1] != 5 || all[len(all)-1] != 104 {
				t.Errorf("files with %v packets, the last %v; want %d files, the newest", perFile, all[len(all)-1], tt.want)
			}
			for i, v := range all {
				if v != all[0]+uint64(i) {
					t.Fatalf("hole in what was kept: %v", all)
				}
			}
			if s := w.Stats(); s.Files != 11 || s.Uncompressed != 0 {
				t.Errorf("stats %+v", s)
			}
		})
	}
}

func tmpfs(t *testing.T, options string) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, options); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// TestDiskFull fills a small file system: what is there is whole, and when
// there is room again writing goes on by itself, with nothing lost.
func TestDiskFull(t *testing.T) {
	dir := tmpfs(t, "size=4M")
	ballast := filepath.Join(dir, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 2<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	w := newWriter(t, config(dir))
	done := make(chan error, 1)
	const n, runs = 200, 15
	go func() {
		for i := range runs {
			if err := w.Write(context.Background(), run(i*n, n, 1000), n); err != nil {
				done <- err
				return
			}
		}
		done <- w.Close(context.Background())
	}()
	netnstest.Eventually(t, patience, func() bool { return w.Stats().Errors > 3 }, "disk is full")
	s := w.Stats()
	if !errors.Is(s.LastError, unix.ENOSPC) || s.Packets == 0 || s.Packets >= n*runs {
		t.Errorf("stats on a full disk: %+v", s)
	}
	tmp, err := filepath.Glob(filepath.Join(dir, "*.tmp"))
	if err != nil || len(tmp) != 1 {
		t.Fatal(tmp, err)
	}
	checkAll(t, numbersOf(t, tmp[0]), int(s.Packets)) // whole to its last packet
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	all, _ := numbers(t, dir)
	checkAll(t, all, n*runs)
	capinfos(t, dir, "no space left on device")
}

// capinfos checks the files with a tool of others, and that a statement is in
// one of them.
func capinfos(t *testing.T, dir, statement string) {
	t.Helper()
	tool := netnstest.Need(t, "capinfos", "wireshark-common")
	paths, err := filepath.Glob(filepath.Join(dir, "*.pcapng"))
	if err != nil {
		t.Fatal(err)
	}
	stated := false
	for _, path := range paths {
		command(t, tool, path)
		raw, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		stated = stated || bytes.Contains(raw, []byte(statement))
	}
	if !stated {
		t.Errorf("no file says %q", statement)
	}
}

// TestGiveUp ends the context on a full disk: the file is completed without
// what it had no room for.
func TestGiveUp(t *testing.T) {
	dir := tmpfs(t, "size=256k")
	w := newWriter(t, config(dir))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		var err error
		for i := 0; err == nil; i++ {
			err = w.Write(ctx, run(i, 1, 3000), 1)
		}
		done <- err
	}()
	netnstest.Eventually(t, patience, func() bool { return w.Stats().Errors > 0 }, "disk is full")
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) || !errors.Is(err, unix.ENOSPC) {
		t.Errorf("Write = %v", err)
	}
	_ = w.Close(ctx) // may or may not have had room for the trailer
	all, perFile := numbers(t, dir)
	if len(perFile) != 1 {
		t.Fatalf("%d files", len(perFile))
	}
	checkAll(t, all, int(w.Stats().Packets))
	if err := w.Write(t.Context(), run(0, 1, 60), 1); !errors.Is(err, os.ErrClosed) {
		t.Errorf("Write after Close = %v", err)
	}
}

// TestDirectoryGone removes the directory and brings it back.
func TestDirectoryGone(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "captures")
	if err := os.Mkdir(dir, 0o750); err != nil {
		t.Fatal(err)
	}
	w := newWriter(t, config(dir))
	if err := w.Write(t.Context(), run(0, 10, 60), 10); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- w.Write(context.Background(), run(0, 5, 60), 5) }()
	netnstest.Eventually(t, patience, func() bool { return w.Stats().Errors > 2 }, "writer hears of it")
	if s := w.Stats(); s.Lost != 10 || !errors.Is(s.LastError, os.ErrNotExist) {
		t.Errorf("stats %+v, want 10 lost", s)
	}
	if err := os.Mkdir(dir, 0o750); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(<-done, w.Close(t.Context())); err != nil {
		t.Fatal(err)
	}
	all, _ := numbers(t, dir)
	checkAll(t, all, 5)
}

// TestReadOnly remounts the file system read-only between two files.
func TestReadOnly(t *testing.T) {
	dir := tmpfs(t, "size=4M")
	w := newWriter(t, config(dir))
	remount := func(flags uintptr) {
		t.Helper()
		if err := unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_BIND|flags, ""); err != nil {
			t.Fatal(err)
		}
	}
	remount(unix.MS_RDONLY)
	done := make(chan error, 1)
	go func() { done <- w.Write(context.Background(), run(0, 10, 60), 10) }()
	netnstest.Eventually(t, patience, func() bool { return errors.Is(w.Stats().LastError, unix.EROFS) }, "writer hears of it")
	remount(0)
	if err := errors.Join(<-done, w.Close(t.Context())); err != nil {
		t.Fatal(err)
	}
	all, _ := numbers(t, dir)
	checkAll(t, all, 10)
}

func TestConfig(t *testing.T) {
	good := config(t.TempDir())
	for name, spoil := range map[string]func(*files.Config){
		"directory": func(c *files.Config) { c.Dir = "/nonexistent" },
		"prefix":    func(c *files.Config) { c.Prefix = "a/b" },
		"header":    func(c *files.Config) { c.Header = nil },
		"bytes":     func(c *files.Config) { c.MaxBytes = 100 },
		"negative":  func(c *files.Config) { c.KeepFiles = -1 },
		"recycle":   func(c *files.Config) { c.Recycle = true },
	} {
		cfg := good
		spoil(&cfg)
		if _, err := files.New(cfg); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
