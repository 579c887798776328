package ringcap_test

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"runtime"
	"testing"
	"time"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"github.com/tproxyd/tproxyd/internal/lab"
	"github.com/tproxyd/tproxyd/internal/netnstest"
	"github.com/tproxyd/tproxyd/internal/tpacket"
	"github.com/tproxyd/tproxyd/ringcap"
)

// TestAllSentAreCaptured sends on both families and stops at once: what is in
// the open block has to come, too.
func TestAllSentAreCaptured(t *testing.T) {
	l := netnstest.New(t)
	c4 := sender(t, l, net.JoinHostPort(lab.ProxyClientIP4, "4000"))
	c6 := sender(t, l, net.JoinHostPort(lab.ProxyClientIP6, "6000"))
	send(t, c4, 1, 8) // neighbours are resolved
	send(t, c6, 1, 8)
	onOneCPU(t)
	before := time.Now()
	// A retire time that would not let anything out by itself within the test.
	c := start(t, ringcap.Config{Retire: 2 * time.Second, BlockSize: 1 << 20, Blocks: 4})
	const n = 5000
	send(t, c4, n, 100)
	send(t, c6, n, 100)
	packets := c.end()
	if s := exact(t, c.ring); s.Drops != 0 || s.Freezes != 0 {
		t.Errorf("stats %+v, want no drops", s)
	}
	for _, port := range []uint16{4000, 6000} {
		got := c.count(udpTo(port))
		if got != n && got != n+1 { // the first one may have been late
			t.Errorf("port %d: %d packets captured, %d sent", port, got, n)
		}
	}
	first := before.Add(-time.Second)
	last := first
	for _, p := range packets {
		if p.time.Before(first) || p.time.After(time.Now().Add(time.Second)) {
			t.Fatalf("packet of %v, want one of this test, which began at %v", p.time, before)
		}
		// The kernel stamps a packet before it waits for its place: what another
		// processor sends, such as neighbour discovery, may come a moment late.
		if !udpTo(4000)(p) && !udpTo(6000)(p) {
			continue
		}
		if p.time.Before(last) {
			t.Fatalf("packet of %v after one of %v", p.time, last)
		}
		last = p.time
	}
}

// onOneCPU keeps the test on one processor, so that the kernel handles what it
// sends there, in this order.
func onOneCPU(t *testing.T) {
	t.Helper()
	runtime.LockOSThread()
	var all, one unix.CPUSet
	if err := unix.SchedGetaffinity(0, &all); err != nil {
		t.Fatal(err)
	}
	for cpu := 0; one.Count() == 0; cpu++ {
		if all.IsSet(cpu) {
			one.Set(cpu)
		}
	}
	if err := unix.SchedSetaffinity(0, &one); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.SchedSetaffinity(0, &all); err != nil {
			t.Error(err)
		}
		runtime.UnlockOSThread()
	})
}

// TestFreeze holds the reader still: the ring freezes, what is dropped is
// counted exactly, and it goes on by itself.
func TestFreeze(t *testing.T) {
	l := netnstest.New(t)
	c := sender(t, l, net.JoinHostPort(lab.ProxyClientIP4, "4000"))
	r := open(t, ringcap.Config{BlockSize: 64 << 10, Blocks: 4})
	if err := r.SetFilter(port(4000)); err != nil {
		t.Fatal(err)
	}
	const n = 4000
	send(t, c, n, 1000)
	stuck, err := r.Stats()
	if err != nil {
		t.Fatal(err)
	}
	if stuck.Packets != n || stuck.Drops == 0 || stuck.Freezes == 0 || stuck.Taken != 0 {
		t.Errorf("stats with a reader held still: %+v, want %d packets, drops and a freeze", stuck, n)
	}
	if held := r.Held(); held != 4 {
		t.Errorf("%d blocks held, want 4", held)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for _, err := range r.Blocks(ctx) {
		if err != nil {
			t.Fatal(err)
		}
		if exact0(t, r).Taken == n-stuck.Drops {
			break // all that was captured is out
		}
	}
	send(t, c, 10, 1000)
	cancel()
	for _, err := range r.Blocks(ctx) {
		if err != nil {
			t.Fatal(err)
		}
	}
	if s := exact(t, r); s.Packets != n+10 || s.Drops != stuck.Drops || s.Taken != n+10-stuck.Drops {
		t.Errorf("stats %+v after %d dropped, want the ten after it captured", s, stuck.Drops)
	}
}

func exact0(t *testing.T, r *ringcap.Ring) ringcap.Stats {
	t.Helper()
	s, err := r.Stats()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// port is a filter for UDP over IPv4 to a port.
func port(p uint32) []bpf.RawInstruction {
	raw, err := bpf.Assemble([]bpf.Instruction{
		bpf.LoadAbsolute{Off: 12, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: 0x800, SkipTrue: 5},
		bpf.LoadAbsolute{Off: 23, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.IPPROTO_UDP, SkipTrue: 3},
		bpf.LoadAbsolute{Off: 36, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: p, SkipTrue: 1},
		bpf.RetConstant{Val: 1 << 18},
		bpf.RetConstant{Val: 0},
	})
	if err != nil {
		panic(err)
	}
	return raw
}

// TestRetain keeps a block over the ring's end.
func TestRetain(t *testing.T) {
	l := netnstest.New(t)
	c := sender(t, l, net.JoinHostPort(lab.ProxyClientIP4, "4000"))
	r := open(t, ringcap.Config{BlockSize: 64 << 10, Blocks: 4, Filter: port(4000)})
	send(t, c, 1000, 100)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var kept *ringcap.Block
	for b, err := range r.Blocks(ctx) {
		if err != nil {
			t.Fatal(err)
		}
		if kept == nil {
			kept = b
			b.Retain()
			cancel()
		}
	}
	if r.Held() != 1 {
		t.Errorf("%d blocks held, want the one retained", r.Held())
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	n := 0
	for p := range kept.Packets() {
		n += len(p.Data()) // the memory is still there
	}
	if n == 0 || kept.Err() != nil {
		t.Errorf("%d bytes in the retained block, %v", n, kept.Err())
	}
	kept.Release()
}

// TestAllRetained checks that a ring all of whose blocks are kept neither spins
// nor sleeps for ever: it goes on when one is released.
func TestAllRetained(t *testing.T) {
	l := netnstest.New(t)
	c := sender(t, l, net.JoinHostPort(lab.ProxyClientIP4, "4000"))
	r := open(t, ringcap.Config{BlockSize: 32 << 10, Blocks: 2, Filter: port(4000)})
	var kept []*ringcap.Block
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	send(t, c, 500, 1000)
	released := make(chan struct{})
	for b, err := range r.Blocks(ctx) {
		if err != nil {
			t.Fatal(err)
		}
		if len(kept) < 2 {
			b.Retain()
			kept = append(kept, b)
			if len(kept) == 2 {
				go func() { defer close(released); kept[0].Release(); send(t, c, 1, 1000) }()
			}
			continue
		}
		break
	}
	<-released
	if ctx.Err() != nil {
		t.Fatal("no block came after one was released")
	}
	kept[1].Release()
}

func TestSuperFrames(t *testing.T) {
	l := netnstest.New(t)
	c := start(t, ringcap.Config{BlockSize: 1 << 20, Blocks: 16})
	for _, ip := range []string{lab.ProxyClientIP4, lab.ProxyClientIP6} {
		ln, err := l.Proxy.Listen("tcp", net.JoinHostPort(ip, "5001"))
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		conn, err := l.Client.Dial(t.Context(), "tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		go func() { _, _ = conn.Write(make([]byte, 1<<20)); _ = conn.Close() }()
		in, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		if n, err := io.Copy(io.Discard, in); n != 1<<20 || err != nil {
			t.Fatal(n, err)
		}
		_ = in.Close()
	}
	udpGSO(t, sender(t, l, net.JoinHostPort(lab.ProxyClientIP4, "4000")), 1200, 20)
	kinds := map[uint8]int{}
	for _, p := range c.end() {
		if p.vnet.GSOSize != 0 && p.len > 3000 {
			kinds[p.vnet.Kind()]++
			if p.len != len(p.data) {
				t.Errorf("super-frame of %d bytes cut to %d", p.len, len(p.data))
			}
			if want := map[uint8]uint16{tpacket.GSOTCPv4: 1448, tpacket.GSOTCPv6: 1428, tpacket.GSOUDPL4: 1200}[p.vnet.Kind()]; p.vnet.GSOSize != want {
				t.Errorf("segment size %d of kind %d, want %d", p.vnet.GSOSize, p.vnet.Kind(), want)
			}
		}
	}
	if kinds[tpacket.GSOTCPv4] == 0 || kinds[tpacket.GSOTCPv6] == 0 || kinds[tpacket.GSOUDPL4] != 1 {
		t.Errorf("super-frames by kind: %v", kinds)
	}
}

// udpGSO sends n datagrams of the given size in one call.
func udpGSO(t *testing.T, c net.Conn, size, n int) {
	t.Helper()
	raw, err := c.(*net.UDPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var set error
	if err := raw.Control(func(fd uintptr) { set = unix.SetsockoptInt(int(fd), unix.SOL_UDP, unix.UDP_SEGMENT, size) }); err != nil || set != nil {
		t.Fatal(err, set)
	}
	if _, err := c.Write(make([]byte, n*size)); err != nil {
		t.Fatal(err)
	}
}

func TestDirections(t *testing.T) {
	l := netnstest.New(t)
	c := sender(t, l, net.JoinHostPort(lab.ProxyClientIP4, "4000"))
	back, err := l.Proxy.Dial(t.Context(), "udp", net.JoinHostPort(lab.ClientIP4, "4001"))
	if err != nil {
		t.Fatal(err)
	}
	defer back.Close()
	pc, err := l.Client.ListenPacket("udp", net.JoinHostPort(lab.ClientIP4, "4001"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = pc.Close() }()
	for _, tt := range []struct {
		direction ringcap.Direction
		in, out   int
	}{{ringcap.Both, 50, 50}, {ringcap.In, 50, 0}, {ringcap.Out, 0, 50}} {
		tap := start(t, ringcap.Config{Direction: tt.direction})
		send(t, c, 50, 20)
		send(t, back, 50, 20)
		tap.end()
		in := tap.count(func(p packet) bool { return udpTo(4000)(p) && !p.out })
		out := tap.count(func(p packet) bool { return udpTo(4001)(p) && p.out })
		if in != tt.in || out != tt.out {
			t.Errorf("direction %d: %d in and %d out, want %d and %d", tt.direction, in, out, tt.in, tt.out)
		}
	}
}

func TestFanout(t *testing.T) {
	l := netnstest.New(t)
	c := sender(t, l, net.JoinHostPort(lab.ProxyClientIP4, "4000"))
	for _, mode := range []ringcap.FanoutMode{ringcap.FanoutHash, ringcap.FanoutCPU} {
		cfg := ringcap.Config{Filter: port(4000), Fanout: &ringcap.Fanout{ID: 7 + uint16(mode), Mode: mode}}
		one, two := start(t, cfg), start(t, cfg)
		send(t, c, 100, 20)
		a, b := len(one.end()), len(two.end())
		if a+b != 100 {
			t.Errorf("mode %d: %d and %d packets on the two rings, want 100 together", mode, a, b)
		}
		if mode == ringcap.FanoutHash && a != 0 && b != 0 {
			t.Errorf("one flow on both rings: %d and %d", a, b)
		}
		if err := errors.Join(one.ring.Close(), two.ring.Close()); err != nil {
			t.Error(err)
		}
	}
}

func TestErrors(t *testing.T) {
	netnstest.New(t)
	for _, cfg := range []ringcap.Config{
		{},
		{Interface: "a-name-that-is-too-long"},
		{Interface: lab.ClientLink, BlockSize: 1000},
		{Interface: lab.ClientLink, Blocks: 1},
		{Interface: lab.ClientLink, Retire: time.Microsecond},
		{Interface: "nosuch"},
	} {
		if _, err := ringcap.Open(cfg); err == nil {
			t.Errorf("Open(%+v) succeeded", cfg)
		}
	}
	if _, err := ringcap.Open(ringcap.Config{Interface: "nosuch"}); !errors.Is(err, unix.ENODEV) {
		t.Errorf("no such interface: %v", err)
	}
	r := open(t, ringcap.Config{})
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	for _, err := range r.Blocks(t.Context()) {
		if !errors.Is(err, os.ErrClosed) {
			t.Errorf("reading a closed ring: %v", err)
		}
	}
}

// TestCapability opens a ring with CAP_NET_RAW and nothing else, and without.
func TestCapability(t *testing.T) {
	netnstest.New(t)
	try := func(caps uint32) (err error) {
		done := make(chan struct{})
		go func() {
			defer close(done)
			runtime.LockOSThread() // and never unlocked: the thread is spoilt
			hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
			var data [2]unix.CapUserData
			data[0] = unix.CapUserData{Effective: caps, Permitted: caps}
			if err = unix.Capset(&hdr, &data[0]); err != nil {
				return
			}
			var r *ringcap.Ring
			cfg := ringcap.Config{
				Interface: lab.ClientLink, BlockSize: 1 << 16, Blocks: 4, Filter: port(1), Direction: ringcap.In,
				Timestamp: ringcap.Hardware, Fanout: &ringcap.Fanout{ID: 99},
			}
			if r, err = ringcap.Open(cfg); err == nil {
				err = r.Close()
			}
		}()
		<-done
		return err
	}
	if err := try(1 << unix.CAP_NET_RAW); err != nil {
		t.Errorf("with CAP_NET_RAW alone: %v", err)
	}
	if err := try(0); !errors.Is(err, unix.EPERM) {
		t.Errorf("without capabilities: %v, want EPERM", err)
	}
}
