package zcsend

import (
	"context"
	"errors"
	"os/exec"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/tproxyd/tproxyd/internal/lab"
	"github.com/tproxyd/tproxyd/internal/netnstest"
)

// TestRefused mixes frames that cannot be sent with good ones: the good ones
// arrive, in order, and all are counted.
func TestRefused(t *testing.T) {
	b := newBed(t)
	for _, m := range Methods() {
		t.Run(m.String(), func(t *testing.T) {
			s := mustOpen(t, Config{Interface: lab.ClientLink, Method: m})
			good := sized(false, 3, 1000)
			long := build(false, unix.IPPROTO_UDP, 1500-27, 0)
			frames := asFrames([][]byte{good[0], long, good[1], {1, 2, 3}, good[2], long})
			n, err := s.Send(t.Context(), frames)
			if n != 3 || !errors.Is(err, ErrTooLong) {
				t.Errorf("sent %d: %v", n, err)
			}
			n, err = s.Send(t.Context(), frames[3:4])
			if n != 0 || !errors.Is(err, ErrFormat) {
				t.Errorf("sent %d: %v", n, err)
			}
			for i, got := range b.tap.take(t, 3) {
				if part(m, got) != part(m, good[i]) {
					t.Errorf("frame %d:\n got %x\nwant %x", i, got, good[i])
				}
			}
			wantStats(t, s, 3, 4)
		})
	}
}

// TestWrongFormat is about what only some methods can send.
func TestWrongFormat(t *testing.T) {
	newBed(t)
	arp := append(append(append([]byte(nil), nobody...), us...), 8, 6, 0, 1)
	tcp := build(false, unix.IPPROTO_TCP, 100, 0)
	udp := build(false, unix.IPPROTO_UDP, 4000, 0)
	fragment := build(false, unix.IPPROTO_UDP, 100, 0)
	fragment[20] = 0x20
	for name, tt := range map[string]struct {
		cfg   Config
		frame Frame
		want  error
	}{
		"ARP to splice-raw":            {Config{Method: SpliceRaw}, Frame{Data: arp}, ErrFormat},
		"ARP to splice-udp":            {Config{Method: SpliceUDP}, Frame{Data: arp}, ErrFormat},
		"TCP to splice-udp":            {Config{Method: SpliceUDP}, Frame{Data: tcp}, ErrFormat},
		"fragment to splice-udp":       {Config{Method: SpliceUDP}, Frame{Data: fragment}, ErrFormat},
		"super-frame to mmsg":          {Config{Method: MMsg}, Frame{Data: udp, SegmentSize: 1000}, ErrFormat},
		"super-frame to ring without":  {Config{Method: Ring}, Frame{Data: udp, SegmentSize: 1000}, ErrFormat},
		"super-frame without headers":  {Config{Method: GSO}, Frame{Data: arp, SegmentSize: 1000}, ErrFormat},
		"super-frame of a fragment":    {Config{Method: GSO}, Frame{Data: fragment, SegmentSize: 50}, ErrFormat},
		"segments longer than the MTU": {Config{Method: GSO}, Frame{Data: udp, SegmentSize: 1473}, ErrTooLong},
		"negative segments":            {Config{Method: GSO}, Frame{Data: udp, SegmentSize: -1}, ErrFormat},
		"long super-frame":             {Config{Method: GSO}, Frame{Data: make([]byte, maxSuper+1), SegmentSize: 1000}, ErrTooLong},
		"long frame to gso":            {Config{Method: GSO}, Frame{Data: udp}, ErrTooLong},
		"no memory of ours":            {Config{Method: Ring}, Frame{}, ErrFormat},
	} {
		t.Run(name, func(t *testing.T) {
			tt.cfg.Interface = lab.ClientLink
			s := mustOpen(t, tt.cfg)
			if n, err := s.Send(t.Context(), []Frame{tt.frame}); n != 0 || !errors.Is(err, tt.want) {
				t.Errorf("sent %d: %v", n, err)
			}
			if err := s.Commit(tt.frame); !errors.Is(err, ErrFormat) {
				t.Errorf("committed: %v", err)
			}
			wantStats(t, s, 0, 2)
		})
	}
}

// TestSmallerMTU has the kernel refuse frames in the middle of a batch that
// were right when the Sender looked.
func TestSmallerMTU(t *testing.T) {
	for _, m := range []Method{Ring, MMsg, GSO} {
		t.Run(m.String(), func(t *testing.T) {
			b := newBed(t)
			s := mustOpen(t, Config{Interface: lab.ClientLink, Method: m})
			setMTU(t, 1280)
			good := sized(false, 4, 1000)
			long := build(false, unix.IPPROTO_UDP, 1400, 0)
			frames := asFrames([][]byte{good[0], long, long, good[1], good[2], long, good[3], long})
			if n, err := s.Send(t.Context(), frames); n != 4 || !errors.Is(err, ErrTooLong) {
				t.Errorf("sent %d: %v", n, err)
			}
			for i, got := range b.tap.take(t, 4) {
				if string(got) != string(good[i]) {
					t.Errorf("frame %d:\n got %x\nwant %x", i, got, good[i])
				}
			}
			wantStats(t, s, 4, 4)

			// A larger one is found out when it is needed. The peer drops what is
			// longer than its own, and the veth says that it has no room.
			s.patience = time.Millisecond
			setMTU(t, 1600)
			larger := asFrames([][]byte{build(false, unix.IPPROTO_UDP, 1600-28, 9)})
			n, err := s.Send(t.Context(), larger)
			if n != 0 || !errors.Is(err, ErrNoRoom) {
				t.Errorf("longer than the peer's MTU: sent %d: %v", n, err)
			}
			if err := b.Client.Do(func() error { return linkMTU(lab.EndLink, 1600) }); err != nil {
				t.Fatal(err)
			}
			n, err = s.Send(t.Context(), larger)
			if n != 1 || err != nil {
				t.Errorf("sent %d: %v", n, err)
			}
			wantStats(t, s, 5, 5)
		})
	}
}

func setMTU(t *testing.T, mtu int) {
	t.Helper()
	if err := linkMTU(lab.ClientLink, mtu); err != nil {
		t.Fatal(err)
	}
}

func linkMTU(name string, mtu int) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	return netlink.LinkSetMTU(link, mtu)
}

// TestLinkFlap wants a clear error while the link is down, nothing old sent
// afterwards, and everything as before.
func TestLinkFlap(t *testing.T) {
	for _, m := range Methods() {
		t.Run(m.String(), func(t *testing.T) {
			b := newBed(t)
			s := mustOpen(t, Config{Interface: lab.ClientLink, Method: m, Batch: 2})
			frames := sized(false, 9, 900)
			if n, err := s.Send(t.Context(), asFrames(frames[:3])); n != 3 || err != nil {
				t.Fatalf("sent %d: %v", n, err)
			}
			if err := b.Proxy.LinkDown(lab.ClientLink); err != nil {
				t.Fatal(err)
			}
			if n, err := s.Send(t.Context(), asFrames(frames[3:6])); n != 0 || !errors.Is(err, ErrLinkDown) {
				t.Errorf("sent %d: %v", n, err)
			}
			if err := b.Proxy.LinkUp(lab.ClientLink); err != nil {
				t.Fatal(err)
			}
			if n, err := s.Send(t.Context(), asFrames(frames[6:])); n != 3 || err != nil {
				t.Fatalf("sent %d: %v", n, err)
			}
			want := append(frames[:3:3], frames[6:]...)
			for i, got := range b.tap.take(t, 6) {
				if part(m, got) != part(m, want[i]) {
					t.Errorf("frame %d:\n got %x\nwant %x", i, got, want[i])
				}
			}
			wantStats(t, s, 6, 3)
		})
	}
}

// TestInterfaceReplaced removes the interface and makes another of its name.
func TestInterfaceReplaced(t *testing.T) {
	for _, m := range Methods() {
		t.Run(m.String(), func(t *testing.T) {
			netnstest.New(t)
			addPair(t)
			s := mustOpen(t, Config{Interface: "zc0", Method: m})
			frame := asFrames([][]byte{build(false, unix.IPPROTO_UDP, 100, 1)})
			removePair(t)
			for range 2 {
				if n, err := s.Send(t.Context(), frame); n != 0 || !errors.Is(err, ErrLinkDown) {
					t.Errorf("sent %d: %v", n, err)
				}
			}
			addPair(t)
			far, err := openTap("zc1")
			if err != nil {
				t.Fatal(err)
			}
			defer far.close()
			if n, err := s.Send(t.Context(), frame); n != 1 || err != nil {
				t.Fatalf("sent %d: %v", n, err)
			}
			far.take(t, 1)
			wantStats(t, s, 1, 2)
			removePair(t)
		})
	}
}

// addPair joins zc0 and zc1, both in the namespace of the test. What is routed
// to the client goes over zc0, to a neighbour that needs no asking.
func addPair(t testing.TB) {
	t.Helper()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "zc0"
	pair := netlink.NewVeth(attrs)
	pair.PeerName = "zc1"
	if err := netlink.LinkAdd(pair); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"zc0", "zc1"} {
		link, err := netlink.LinkByName(name)
		if err == nil {
			err = netlink.LinkSetUp(link)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	link, err := netlink.LinkByName("zc0")
	if err != nil {
		t.Fatal(err)
	}
	err = netlink.RouteReplace(&netlink.Route{
		LinkIndex: link.Attrs().Index, Scope: netlink.SCOPE_LINK,
		Dst: netlink.NewIPNet(client4.AsSlice()),
	})
	if err == nil {
		err = netlink.NeighSet(&netlink.Neigh{
			LinkIndex: link.Attrs().Index, State: netlink.NUD_PERMANENT,
			IP: client4.AsSlice(), HardwareAddr: nobody,
		})
	}
	if err != nil {
		t.Fatal(err)
	}
}

func removePair(t testing.TB) {
	t.Helper()
	link, err := netlink.LinkByName("zc0")
	if err == nil {
		err = netlink.LinkDel(link)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// hold gives the link to the client a queue that lets next to nothing out until release.
func hold(t testing.TB) (release func()) {
	t.Helper()
	tc := netnstest.Need(t, "tc", "iproute2")
	run := func(args ...string) {
		t.Helper()
		if out, err := exec.CommandContext(t.Context(), tc, args...).CombinedOutput(); err != nil {
			t.Fatalf("tc %q: %v: %s", args, err, out)
		}
	}
	run("qdisc", "replace", "dev", lab.ClientLink, "root", "tbf", "rate", "1kbit", "burst", "2000", "limit", "262144")
	return func() {
		t.Helper()
		run("qdisc", "change", "dev", lab.ClientLink, "root", "tbf", "rate", "10gbit", "burst", "10000000", "limit", "67108864")
	}
}

// TestFull fills a ring, and the queue behind a packet socket, to the brim.
func TestFull(t *testing.T) {
	for _, m := range []Method{Ring, MMsg} {
		t.Run(m.String(), func(t *testing.T) {
			b := newBed(t)
			release := hold(t)
			frames := asFrames(sized(false, 3000, 1000))

			now := mustOpen(t, Config{Interface: lab.ClientLink, Method: m, DropWhenFull: true, RingBytes: 128 << 10})
			n, err := now.Send(t.Context(), frames)
			if n == 0 || n == len(frames) || !errors.Is(err, ErrNoRoom) {
				t.Errorf("without waiting: sent %d: %v", n, err)
			}
			if got := now.Stats(); got.Sent+got.InFlight != uint64(n) || got.Sent+got.InFlight+got.Refused != 3000 {
				t.Errorf("after %d: %+v", n, got)
			}

			wait := mustOpen(t, Config{Interface: lab.ClientLink, Method: m, RingBytes: 128 << 10})
			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			defer cancel()
			some, err := wait.Send(ctx, frames)
			if some == len(frames) || !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("with a deadline: sent %d: %v", some, err)
			}

			release()
			all, err := wait.Send(t.Context(), frames)
			if all != len(frames) || err != nil {
				t.Errorf("after the release: sent %d: %v", all, err)
			}
			b.tap.take(t, n+some+all)
			wantStats(t, wait, uint64(some+all), uint64(len(frames)-some))
			wantStats(t, now, uint64(n), uint64(len(frames)-n))
		})
	}
}

// TestContextEnded has every Send and Reserve after the context's end refuse.
func TestContextEnded(t *testing.T) {
	newBed(t)
	hold(t)
	s := mustOpen(t, Config{Interface: lab.ClientLink, Method: Ring, RingBytes: 64 << 10})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	frames := asFrames(sized(false, 200, 1000))
	if _, err := s.Send(ctx, frames); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if _, err := s.Reserve(ctx, 100); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if err := s.Drain(ctx); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	got := s.Stats()
	if got.Sent+got.InFlight+got.Refused != 201 || got.InFlight == 0 {
		t.Errorf("%+v", got)
	}
}
