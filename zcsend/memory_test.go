package zcsend

import (
	"bytes"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tproxyd/tproxyd/internal/lab"
	"github.com/tproxyd/tproxyd/internal/packet"
)

// TestArenaIsNotRewritten keeps the datagrams of several arenas unread. They
// are in the receiver's buffer by reference (TestProbe), so writing to a page
// again would change them.
func TestArenaIsNotRewritten(t *testing.T) {
	const n = 3 * arenaBytes / 1500
	b := newBed(t)
	conn, err := b.Client.ListenPacket("udp4", netip.AddrPortFrom(client4, discard).String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	raw, err := conn.(*net.UDPConn).SyscallConn()
	if err == nil {
		err = raw.Control(func(fd uintptr) {
			if err := unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 64<<20); err != nil {
				t.Error(err)
			}
		})
	}
	if err != nil {
		t.Fatal(err)
	}
	s := mustOpen(t, Config{Interface: lab.ClientLink, Method: SpliceUDP})
	want := sized(false, n, 1400)
	if sent, err := s.Send(t.Context(), asFrames(want)); sent != n || err != nil {
		t.Fatalf("sent %d: %v", sent, err)
	}
	if err := conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 1500)
	for i, f := range want {
		size, _, err := conn.ReadFrom(buf)
		if err != nil {
			t.Fatalf("datagram %d: %v", i, err)
		}
		if l, _ := packet.Parse(f); !bytes.Equal(buf[:size], f[l.Payload:]) {
			t.Fatalf("datagram %d was changed while it waited", i)
		}
	}
}

// TestAllocations wants none once everything is set up.
func TestAllocations(t *testing.T) {
	newBed(t)
	for _, m := range Methods() {
		s := mustOpen(t, Config{Interface: lab.ClientLink, Method: m})
		frames := asFrames(sized(false, 100, 1000))
		for i := range frames {
			frames[i].Checksum = true
		}
		ctx := t.Context()
		run := func() {
			if n, err := s.Send(ctx, frames); n != len(frames) || err != nil {
				t.Errorf("%s: sent %d: %v", m, n, err)
			}
			if room, err := s.Reserve(ctx, len(frames[9].Data)); err == nil {
				copy(room, frames[9].Data)
				if err := s.Commit(Frame{Data: room, Checksum: true}); err != nil {
					t.Error(err)
				}
			}
		}
		run()
		if n := testing.AllocsPerRun(20, run); n >= 1 {
			t.Errorf("%s: %v allocations for %d frames", m, n, len(frames)+1)
		}
	}
}

// TestUDPSockets wants no more sockets than are allowed, for any number of
// conversations.
func TestUDPSockets(t *testing.T) {
	const n = maxUDPSockets + 50
	b := newBed(t)
	s := mustOpen(t, Config{Interface: lab.ClientLink, Method: SpliceUDP})
	var want [][]byte
	for i := range n {
		f := build(false, unix.IPPROTO_UDP, 20, i)
		f[34], f[35] = byte(0x40+i>>8), byte(i) // the source port
		want = append(want, f)
	}
	if sent, err := s.Send(t.Context(), asFrames(append(want, want...))); sent != 2*n || err != nil {
		t.Fatalf("sent %d: %v", sent, err)
	}
	for i, got := range b.tap.take(t, 2*n) {
		if part(SpliceUDP, got) != part(SpliceUDP, want[i%n]) {
			t.Fatalf("frame %d: %x", i, got)
		}
	}
	if open := len(s.engine.(*splice).sockets.(*udpSockets).open); open != maxUDPSockets {
		t.Errorf("%d sockets are open, want %d", open, maxUDPSockets)
	}
}
