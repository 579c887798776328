package ringcap_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/gopacket/gopacket/pcapgo"
	"golang.org/x/sys/unix"

	"github.com/tproxyd/tproxyd/internal/lab"
	"github.com/tproxyd/tproxyd/internal/netnstest"
	"github.com/tproxyd/tproxyd/ringcap"
	"github.com/tproxyd/tproxyd/ringcap/files"
	"github.com/tproxyd/tproxyd/ringcap/pcapng"
)

// numbered reads a capture and returns the running numbers in its datagrams.
func numbered(t *testing.T, raw []byte) (all []uint32) {
	t.Helper()
	r, err := pcapgo.NewNgReader(bytes.NewReader(raw), pcapgo.DefaultNgReaderOptions)
	if err != nil {
		t.Fatal(err)
	}
	for {
		data, _, err := r.ReadPacketData()
		if err != nil {
			return all
		}
		at := 14 + 20 + 8
		if data[12] == 0x86 {
			at += 20
		}
		all = append(all, binary.BigEndian.Uint32(data[at:]))
	}
}

func header(dst []byte) []byte {
	return pcapng.AppendInterface(pcapng.AppendSection(dst, pcapng.Section{Application: "test"}), pcapng.Interface{Name: lab.ClientLink})
}

func dump(t *testing.T, r *ringcap.Recorder, w ringcap.Window, pick func(ringcap.Packet) (pcapng.Tag, bool)) []uint32 {
	t.Helper()
	out := bytes.NewBuffer(header(nil))
	n, err := r.Dump(w, pick, out)
	if err != nil {
		t.Fatal(err)
	}
	all := numbered(t, out.Bytes())
	if len(all) != n {
		t.Fatalf("dump of %d packets says %d", len(all), n)
	}
	return all
}

// TestRecorder runs far more through the ring than it holds: nothing is
// dropped, and the history is the newest packets without a hole.
func TestRecorder(t *testing.T) {
	l := netnstest.New(t)
	c4 := sender(t, l, net.JoinHostPort(lab.ProxyClientIP4, "4000"))
	c6 := sender(t, l, net.JoinHostPort(lab.ProxyClientIP6, "4000"))
	ring := open(t, ringcap.Config{BlockSize: 64 << 10, Blocks: 16, Direction: ringcap.In})
	r, err := ringcap.NewRecorder(ring, 4)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	set := &ringcap.FlowSet{}
	key := ringcap.FlowKey{
		Protocol: unix.IPPROTO_UDP,
		A:        netip.MustParseAddrPort(c6.RemoteAddr().String()), B: netip.MustParseAddrPort(c6.LocalAddr().String()),
	}
	set.Set(key, pcapng.Tag{ID: 6})
	// In pieces, as the kernel must not be faster than the recorder.
	const n, piece = 3000, 100
	taken := func(n uint64) {
		t.Helper()
		netnstest.Eventually(t, patience, func() bool { return exact0(t, ring).Taken >= n }, "packets are recorded")
	}
	var trigger time.Time
	for i := range n / piece {
		if i == n/piece-1 {
			trigger = time.Now()
		}
		send(t, c4, piece, 1000)
		taken(uint64((i + 1) * piece))
	}
	send(t, c6, 10, 20)
	taken(n + 10)
	all := dump(t, r, ringcap.Window{}, nil)
	if len(all) < 200 || len(all) >= n {
		t.Errorf("history of %d packets, want what fits into twelve blocks", len(all))
	}
	if got := dump(t, r, ringcap.Window{From: trigger}, nil); len(got) < piece+10 || len(got) > piece+20 {
		t.Errorf("%d packets since the trigger, want %d", len(got), piece+10)
	}
	if got := dump(t, r, ringcap.Window{To: trigger}, set.Pick); len(got) != 0 {
		t.Errorf("%d packets of the flow before it was", len(got))
	}
	if got := dump(t, r, ringcap.Window{}, set.Pick); len(got) != 10 || got[9] != 9 {
		t.Errorf("packets %v of the flow, want ten", got)
	}
	set.Delete(key)
	if set.Len() != 0 || len(dump(t, r, ringcap.Window{}, set.Pick)) != 0 {
		t.Error("a flow that was deleted is dumped")
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if s := exact(t, ring); s.Drops != 0 || ring.Held() != 0 {
		t.Errorf("stats %+v, %d blocks held", s, ring.Held())
	}
}

// TestCaptureDiskFull fills the disk under a capture: the ring freezes, the
// sender does not notice, and when there is room again it goes on. What was
// dropped is in the file, which is whole.
func TestCaptureDiskFull(t *testing.T) {
	capinfos := netnstest.Need(t, "capinfos", "wireshark-common")
	l := netnstest.New(t)
	c := sender(t, l, net.JoinHostPort(lab.ProxyClientIP4, "4000"))
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=4M"); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Unmount(dir, unix.MNT_DETACH) }()
	ballast := filepath.Join(dir, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 3<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, encoding := range []ringcap.Encoding{ringcap.InPlace, ringcap.Compact, ringcap.Copy} {
		ring := open(t, ringcap.Config{BlockSize: 128 << 10, Blocks: 8, Filter: port(4000)})
		w, err := files.New(files.Config{
			Dir: dir, Prefix: "full", Retry: 5 * time.Millisecond, Header: header,
			Trailer: func(dst []byte, f files.File) []byte {
				return pcapng.AppendStatistics(dst, ring.Statistics(0, f))
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		capture := ringcap.Capture{Ring: ring, Files: w, Encoding: encoding}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- capture.Run(ctx) }()
		sent := 0
		netnstest.Eventually(t, patience, func() bool {
			send(t, c, 100, 1000)
			sent += 100
			s := exact0(t, ring)
			return s.Drops > 0 && s.Freezes > 0 && errors.Is(w.Stats().LastError, unix.ENOSPC)
		}, "disk full and ring frozen")
		if err := os.Remove(ballast); err != nil {
			t.Fatal(err)
		}
		netnstest.Eventually(t, patience, func() bool { return w.Stats().LastError == nil && ring.Held() < 8 }, "capture goes on")
		send(t, c, 50, 1000)
		sent += 50
		cancel()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if err := w.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		s := exact(t, ring)
		if s.Packets != uint64(sent) || w.Stats().Packets != int64(s.Taken) {
			t.Errorf("%d sent; stats %+v; %d in the file", sent, s, w.Stats().Packets)
		}
		checkFile(t, capinfos, dir, int(s.Taken))
		if err := os.WriteFile(ballast, make([]byte, 3<<20), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// checkFile looks at the one file in a directory and removes it.
func checkFile(t *testing.T, capinfos, dir string, packets int) {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(dir, "*.pcapng"))
	if err != nil || len(paths) != 1 {
		t.Fatal(paths, err)
	}
	if out, err := exec.CommandContext(t.Context(), capinfos, paths[0]).CombinedOutput(); err != nil {
		t.Errorf("capinfos: %v: %s", err, out)
	}
	raw, err := os.ReadFile(paths[0])
	if err != nil {
		t.Fatal(err)
	}
	if got := len(numbered(t, raw)); got != packets {
		t.Errorf("%d packets in the file, %d taken from the ring", got, packets)
	}
	for _, part := range []string{"ring froze", "no space left on device"} {
		if !bytes.Contains(raw, []byte(part)) {
			t.Errorf("the file does not say %q", part)
		}
	}
	if err := os.Remove(paths[0]); err != nil {
		t.Fatal(err)
	}
}
