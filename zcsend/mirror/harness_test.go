package mirror_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/tproxyd/tproxyd/internal/lab"
	"github.com/tproxyd/tproxyd/internal/netnstest"
	"github.com/tproxyd/tproxyd/internal/packet"
	"github.com/tproxyd/tproxyd/internal/tpacket"
	"github.com/tproxyd/tproxyd/ringcap"
	"github.com/tproxyd/tproxyd/ringcap/filter"
	"github.com/tproxyd/tproxyd/ringcap/gso"
	"github.com/tproxyd/tproxyd/zcsend"
	"github.com/tproxyd/tproxyd/zcsend/mirror"
)

var be = binary.BigEndian

// patience is how long a test waits for what must come.
const patience = 30 * time.Second

// The ends of a mirror port: what leaves by the first comes in by the second.
const (
	portLink = "lab-mirror"
	farLink  = "lab-probe"
)

// traffic is the filter for what the tests send.
const traffic = "port 5001 or (vlan and port 5001)"

// openRing opens a ring in the namespace of the calling thread.
func openRing(link, expression string, direction ringcap.Direction) (*ringcap.Ring, error) {
	program, err := filter.Compile(expression, filter.Options{Metadata: true})
	if err != nil {
		return nil, err
	}
	return ringcap.Open(ringcap.Config{Interface: link, Filter: program, Direction: direction, BlockSize: 1 << 20, Blocks: 24})
}

// tap collects the frames of an interface as the wire would have them: cut,
// with tags and checksums.
type tap struct {
	ring *ringcap.Ring
	stop context.CancelFunc
	wg   sync.WaitGroup

	mu     sync.Mutex
	frames []string
	supers int
	err    error
}

func newTap(t *testing.T, host *lab.Host, link string, direction ringcap.Direction) *tap {
	t.Helper()
	return newTapOf(t, host, link, traffic, direction)
}

func newTapOf(t *testing.T, host *lab.Host, link, expression string, direction ringcap.Direction) *tap {
	t.Helper()
	p := &tap{}
	if err := host.Do(func() (err error) {
		p.ring, err = openRing(link, expression, direction)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	p.stop = cancel
	p.wg.Go(func() { p.read(ctx) })
	t.Cleanup(func() { p.end(); _ = p.ring.Close() })
	return p
}

func (p *tap) read(ctx context.Context) {
	var c gso.Cutter
	for b, err := range p.ring.Blocks(ctx) {
		if err != nil {
			p.err = err
			return
		}
		p.mu.Lock()
		for f := range b.Packets() {
			v, _ := f.VNet()
			if v.GSOSize != 0 {
				p.supers++
			}
			for piece := range c.Segments(bytes.Clone(f.Data()), int(v.GSOSize)) {
				p.frames = append(p.frames, onWire(piece, f, v.GSOSize == 0 && v.Flags&tpacket.NeedsCsum != 0))
			}
		}
		p.mu.Unlock()
	}
}

func onWire(b []byte, f ringcap.Packet, sum bool) string {
	if l, ok := packet.Parse(b); ok && sum {
		l.SetChecksums(b)
	}
	if tag, ok := f.VLAN(); ok {
		b = slices.Concat(b[:12], be.AppendUint16(be.AppendUint16(nil, tag.TPID), tag.TCI), b[12:])
	}
	return string(b)
}

func (p *tap) count() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.frames)
}

// end stops the tap and returns what it has seen.
func (p *tap) end() []string {
	p.stop()
	p.wg.Wait()
	return p.frames
}

// running is a mirror of interfaces of the proxy.
type running struct {
	*mirror.Mirror
	rings []*ringcap.Ring
	stop  context.CancelFunc
	wg    sync.WaitGroup
	cpu   atomic.Int64 // nanoseconds that mirroring took
}

func startMirror(t testing.TB, cfg mirror.Config, expression string, links ...string) *running {
	t.Helper()
	cfg.Name = "test"
	m, err := mirror.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	r := &running{Mirror: m, stop: cancel}
	for _, link := range links {
		ring, err := openRing(link, expression, ringcap.Both)
		if err != nil {
			t.Fatal(err)
		}
		r.rings = append(r.rings, ring)
		r.wg.Go(func() {
			runtime.LockOSThread() // and never unlocked: it ends with the goroutine
			if err := m.Run(ctx, ring); err != nil {
				t.Error(err)
			}
			var u unix.Rusage
			if err := unix.Getrusage(unix.RUSAGE_THREAD, &u); err != nil {
				t.Error(err)
			}
			r.cpu.Add(u.Utime.Nano() + u.Stime.Nano())
		})
	}
	t.Cleanup(func() {
		r.end()
		for _, ring := range r.rings {
			_ = ring.Close()
		}
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

// end stops the mirror when all that was captured has been sent, and checks
// that every frame was counted once.
func (r *running) end() mirror.Stats {
	r.stop()
	r.wg.Wait()
	return r.Stats()
}

func exact(t *testing.T, s mirror.Stats) {
	t.Helper()
	if got := s.Frames + s.Drops() - s.Dropped[mirror.RingFull]; got != s.Seen+s.Cut {
		t.Errorf("%+v: %d counted, %d seen and %d by cutting", s, got, s.Seen, s.Cut)
	}
}

// addPort makes the two ends of a mirror port in the proxy.
func addPort(t testing.TB, mtu int) {
	t.Helper()
	a := netlink.NewLinkAttrs()
	a.Name, a.MTU = portLink, mtu
	v := &netlink.Veth{LinkAttrs: a, PeerName: farLink, PeerMTU: uint32(mtu)}
	if err := netlink.LinkAdd(v); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = netlink.LinkDel(v) })
	for _, name := range []string{portLink, farLink} {
		l, err := netlink.LinkByName(name)
		if err == nil {
			err = netlink.LinkSetUp(l)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// exchange sends datagrams and streams between client and proxy, both ways.
func exchange(t *testing.T, l *lab.Lab, datagrams, bulk int) {
	t.Helper()
	for _, ip := range []string{lab.ProxyClientIP4, lab.ProxyClientIP6} {
		address := net.JoinHostPort(ip, "5001")
		stream(t, l, address, bulk)
		pc, err := l.Proxy.ListenPacket("udp", address)
		if err != nil {
			t.Fatal(err)
		}
		c, err := l.Client.Dial(t.Context(), "udp", address)
		if err != nil {
			t.Fatal(err)
		}
		for i := range datagrams {
			if _, err := c.Write(bytes.Repeat([]byte{byte(i)}, 1+i*1400/max(1, datagrams))); err != nil {
				t.Fatal(err)
			}
		}
		_, _ = c.Close(), pc.Close()
	}
}

// stream sends bulk bytes each way over TCP.
func stream(t *testing.T, l *lab.Lab, address string, bulk int) {
	t.Helper()
	ln, err := l.Proxy.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	defer func() { _ = ln.Close() }()
	wg.Go(func() {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		defer func() { _ = c.Close() }()
		if _, err := io.Copy(io.Discard, c); err == nil {
			_, _ = c.Write(make([]byte, bulk))
		}
	})
	c, err := l.Client.Dial(t.Context(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	if _, err := c.Write(bytes.Repeat([]byte("tproxyd."), bulk/8)); err != nil {
		t.Fatal(err)
	}
	if err := c.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if n, err := io.Copy(io.Discard, c); err != nil || int(n) != bulk {
		t.Fatalf("%d bytes came back, %v", n, err)
	}
}

// same compares frames, the order of those of different rings left out.
func same(t *testing.T, got, want []string) {
	t.Helper()
	if len(want) == 0 {
		t.Fatal("the tap has seen nothing")
	}
	got, want = slices.Clone(got), slices.Clone(want)
	slices.Sort(got)
	slices.Sort(want)
	if slices.Equal(got, want) {
		return
	}
	t.Errorf("%d frames arrived, want %d", len(got), len(want))
	for i := range min(len(got), len(want)) {
		if got[i] != want[i] {
			t.Fatalf("first that differs:\n got %x\nwant %x", short(got[i]), short(want[i]))
		}
	}
}

func short(s string) string { return s[:min(len(s), 90)] }

// rightSums checks the checksums of frames.
func rightSums(t *testing.T, frames []string) {
	t.Helper()
	for _, f := range frames {
		b := []byte(f)
		l, _ := packet.Parse(b)
		if !l.SetChecksums(b) || string(b) != f {
			t.Fatalf("checksums are wrong: %x", short(f))
		}
	}
}

func await(t *testing.T, far *tap, n int) []string {
	t.Helper()
	netnstest.Eventually(t, patience, func() bool { return far.count() >= n }, fmt.Sprintf("want %d frames", n))
	return far.end()
}

// vlan is that of sendTagged.
const vlan = 77

// sendTagged sends datagrams with a tag from the client.
func sendTagged(t *testing.T, l *lab.Lab, n int) {
	t.Helper()
	if err := l.Client.Do(func() error {
		s, err := zcsend.Open(zcsend.Config{Interface: lab.EndLink, Method: zcsend.MMsg})
		if err != nil {
			return err
		}
		for i := range n {
			f := slices.Concat(bytes.Repeat([]byte{0xff}, 6), []byte{2, 0, 0, 0, 0, 1, 0x81, 0, 0x60, vlan, 8, 0})
			f = append(f, 0x45, 0, 0, byte(28+i), 0, 1, 0x40, 0, 64, 17, 0, 0, 203, 0, 113, 7, 203, 0, 113, 255)
			f = append(f, 0x13, 0x89, 0x13, 0x89, 0, byte(8+i), 0, 0) // port 5001
			_, sent := s.Send(context.Background(), []zcsend.Frame{{Data: append(f, make([]byte, i)...), Checksum: true}})
			err = errors.Join(err, sent)
		}
		return errors.Join(err, s.Close())
	}); err != nil {
		t.Fatal(err)
	}
}
