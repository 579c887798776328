package gso_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os/exec"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tproxyd/tproxyd/internal/lab"
	"github.com/tproxyd/tproxyd/internal/netnstest"
	"github.com/tproxyd/tproxyd/ringcap"
	"github.com/tproxyd/tproxyd/ringcap/filter"
	"github.com/tproxyd/tproxyd/ringcap/gso"
)

var be = binary.BigEndian

// tap collects the packets of one interface, cut or as they come.
type tap struct {
	ring *ringcap.Ring
	wg   sync.WaitGroup
	stop context.CancelFunc

	packets [][]byte // from the network header on
	pieces  [][]byte // those of them that were cut out of super-frames
	supers  int
	err     error
}

func newTap(t *testing.T, link string, direction ringcap.Direction, cut bool) *tap {
	t.Helper()
	program, err := filter.Compile("port 5001 or port 5002", filter.Options{})
	if err != nil {
		t.Fatal(err)
	}
	r, err := ringcap.Open(ringcap.Config{Interface: link, Direction: direction, Filter: program, BlockSize: 1 << 20, Blocks: 16})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	p := &tap{ring: r, stop: cancel}
	p.wg.Go(func() { p.read(ctx, cut) })
	t.Cleanup(func() { cancel(); p.wg.Wait(); _ = r.Close() })
	return p
}

func (p *tap) read(ctx context.Context, cut bool) {
	var c gso.Cutter
	for b, err := range p.ring.Blocks(ctx) {
		if err != nil {
			p.err = err
			return
		}
		for f := range b.Packets() {
			v, _ := f.VNet()
			if v.GSOSize != 0 {
				p.supers++
			}
			if !cut {
				p.packets = append(p.packets, bytes.Clone(f.Data()[14:]))
				continue
			}
			for s := range c.Segments(f.Data(), int(v.GSOSize)) {
				p.packets = append(p.packets, bytes.Clone(s[14:]))
				if v.GSOSize != 0 {
					p.pieces = append(p.pieces, bytes.Clone(s[14:]))
				}
			}
		}
	}
}

// comparable undoes what forwarding does: the TTL, and the checksum over it.
// The transport's checksums are left out: the kernel leaves those to the card.
func (p *tap) comparable(t *testing.T) (all []string) {
	t.Helper()
	p.stop()
	p.wg.Wait()
	if p.err != nil {
		t.Fatal(p.err)
	}
	for _, b := range p.packets {
		hops := 7
		if b[0]>>4 == 4 {
			hops = 8
			be.PutUint16(b[10:], 0)
		}
		b[hops] = 0
		transport, checksum, _ := transportOf(b)
		be.PutUint16(b[transport+checksum:], 0)
		all = append(all, string(b))
	}
	return all
}

// transportOf says where the transport header and its checksum are.
func transportOf(b []byte) (at, checksum int, protocol byte) {
	at, protocol = 40, b[6]
	if b[0]>>4 == 4 {
		at, protocol = int(b[0]&15)*4, b[9]
	}
	if protocol == unix.IPPROTO_TCP {
		return at, 16, protocol
	}
	return at, 6, protocol
}

// checksums checks those of a piece as a receiver would: RFC 1071, two bytes
// at a time.
func checksums(t *testing.T, b []byte) {
	t.Helper()
	ones := func(parts ...[]byte) uint32 {
		s := uint32(0)
		for _, p := range parts {
			for i := range p {
				s += uint32(p[i]) << (8 * (1 - i%2))
				s = s&0xffff + s>>16
			}
		}
		return s
	}
	at, _, protocol := transportOf(b)
	addresses := b[8:40]
	if b[0]>>4 == 4 {
		addresses = b[12:20]
		if got := ones(b[:at]); got != 0xffff {
			t.Errorf("IPv4 header adds up to %#x", got)
		}
	}
	length := be.AppendUint16([]byte{0, protocol}, uint16(len(b)-at))
	if got := ones(addresses, length, b[at:]); got != 0xffff {
		t.Errorf("transport adds up to %#x in %x", got, b[:60])
	}
}

// TestAsTheKernel sends super-frames through a forwarding host. What comes in
// is cut by us, and on the way out by the kernel, which is told that the link
// takes one segment at a time.
func TestAsTheKernel(t *testing.T) {
	ip := netnstest.Need(t, "ip", "iproute2")
	l := netnstest.New(t)
	if out, err := exec.CommandContext(t.Context(), ip, "link", "set", "dev", lab.ServerLink, "gso_max_segs", "1").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	ours := newTap(t, lab.ClientLink, ringcap.In, true)
	kernels := newTap(t, lab.ServerLink, ringcap.Out, false)
	for _, addr := range []string{lab.ServerIP4, lab.ServerIP6} {
		tcp(t, l, net.JoinHostPort(addr, "5001"))
		udp(t, l, net.JoinHostPort(addr, "5002"))
	}
	got, want := ours.comparable(t), kernels.comparable(t)
	if ours.supers < 4 || kernels.supers != 0 {
		t.Fatalf("%d super-frames came in and %d went out", ours.supers, kernels.supers)
	}
	for _, b := range ours.pieces {
		checksums(t, b)
	}
	if len(got) != len(want) {
		t.Fatalf("cut to %d packets, the kernel to %d", len(got), len(want))
	}
	for i := range got {
		if got[i] != want[i] {
			t.Fatalf("packet %d of %d: got\n%x\nkernel\n%x", i, len(got), head(got[i]), head(want[i]))
		}
	}
	t.Logf("%d packets alike, out of %d super-frames", len(got), ours.supers)
}

func head(s string) string { return s[:min(len(s), 80)] }

func tcp(t *testing.T, l *lab.Lab, address string) {
	t.Helper()
	ln, err := l.Server.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	c, err := l.Client.Dial(t.Context(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		b := make([]byte, 300_001)
		for i := range b {
			b[i] = byte(i * i >> 7)
		}
		_, _ = c.Write(b)
		_ = c.Close()
	}()
	in, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	if n, err := io.Copy(io.Discard, in); n != 300_001 || err != nil {
		t.Fatal(n, err)
	}
}

func udp(t *testing.T, l *lab.Lab, address string) {
	t.Helper()
	pc, err := l.Server.ListenPacket("udp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = pc.Close() }()
	c, err := l.Client.Dial(t.Context(), "udp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	raw, err := c.(*net.UDPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var set error
	if err := raw.Control(func(fd uintptr) { set = unix.SetsockoptInt(int(fd), unix.SOL_UDP, unix.UDP_SEGMENT, 1001) }); err != nil || set != nil {
		t.Fatal(err, set)
	}
	if _, err := c.Write(bytes.Repeat([]byte("0123456"), 2000)); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 2000)
	for got := 0; got < 14_000; {
		n, _, err := pc.ReadFrom(b)
		if err != nil {
			t.Fatal(err)
		}
		got += n
	}
}

// TestFlags is about the flags that belong to one piece only.
func TestFlags(t *testing.T) {
	frame := make([]byte, 14+20+20+2500)
	be.PutUint16(frame[12:], unix.ETH_P_IP)
	frame[14], frame[14+9], frame[14+20+12], frame[14+20+13] = 0x45, unix.IPPROTO_TCP, 0x50, 0x80|0x10|0x08|0x01
	be.PutUint16(frame[14+4:], 0xffff)
	be.PutUint32(frame[14+20+4:], 0xfffffff0)
	var c gso.Cutter
	var flags []byte
	var ids []uint16
	var seqs []uint32
	for s := range c.Segments(frame, 1000) {
		flags, ids, seqs = append(flags, s[47]), append(ids, be.Uint16(s[18:])), append(seqs, be.Uint32(s[38:]))
	}
	if fmt.Sprintf("%x %x %x", flags, ids, seqs) != "901019 [ffff 0 1] [fffffff0 3d8 7c0]" {
		t.Errorf("flags, ids, sequence numbers: %x %x %x", flags, ids, seqs)
	}
}

// FuzzSegments cuts arbitrary bytes: no panic, and the payload is all there.
func FuzzSegments(f *testing.F) {
	f.Add(make([]byte, 100), 10)
	frame := make([]byte, 200)
	be.PutUint16(frame[12:], unix.ETH_P_IPV6)
	frame[14+6] = unix.IPPROTO_UDP
	f.Add(frame, 33)
	f.Fuzz(func(t *testing.T, frame []byte, size int) {
		var c gso.Cutter
		total, pieces := 0, 0
		for s := range c.Segments(frame, size) {
			total += len(s)
			pieces++
		}
		if pieces == 1 && total != len(frame) || total < len(frame) || pieces > len(frame)+1 {
			t.Fatalf("%d bytes cut to %d pieces of %d bytes", len(frame), pieces, total)
		}
	})
}

func Example() {
	frame := make([]byte, 14+40+8+2500)
	be.PutUint16(frame[12:], unix.ETH_P_IPV6)
	frame[14+6] = unix.IPPROTO_UDP
	var c gso.Cutter
	for piece := range c.Segments(frame, 1200) {
		fmt.Println(len(piece))
	}
	// Output:
	// 1262
	// 1262
	// 162
}
