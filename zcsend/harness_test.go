package zcsend

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/tproxyd/tproxyd/internal/lab"
	"github.com/tproxyd/tproxyd/internal/netnstest"
	"github.com/tproxyd/tproxyd/internal/packet"
	"github.com/tproxyd/tproxyd/internal/sys"
)

// patience is how long anything may take on a busy machine.
const patience = 30 * time.Second

// The sources of all test packets: nobody has them.
var (
	spoofed4 = netip.MustParseAddr("203.0.113.77")
	spoofed6 = netip.MustParseAddr("2001:db8:ff::77")
	client4  = netip.MustParseAddr(lab.ClientIP4)
	client6  = netip.MustParseAddr(lab.ClientIP6)
)

// The discard port is what test packets go to; nobody listens there.
const discard = 9

// bed is a lab with a tap on the client's side, where the proxy sends to.
type bed struct {
	*lab.Lab
	tap *tap
}

func newBed(t testing.TB) *bed {
	l := netnstest.New(t)
	b := &bed{Lab: l}
	if err := l.Client.Do(func() (err error) {
		b.tap, err = openTap(lab.EndLink)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.tap.close)
	return b
}

// tap receives all frames of an interface.
type tap struct {
	fd  int
	buf []byte
}

func openTap(device string) (*tap, error) {
	link, err := netlink.LinkByName(device)
	if err != nil {
		return nil, err
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	t := &tap{fd: fd, buf: make([]byte, 1<<17)}
	if err := errors.Join(
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 64<<20),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 100000}),
		unix.Bind(fd, &unix.SockaddrLinklayer{Ifindex: link.Attrs().Index, Protocol: packetAll}),
	); err != nil {
		t.close()
		return nil, err
	}
	return t, nil
}

// packetAll is ETH_P_ALL in network byte order.
var packetAll = binary.BigEndian.Uint16(binary.NativeEndian.AppendUint16(nil, unix.ETH_P_ALL))

func (t *tap) close() { sys.Close(t.fd) }

// next returns the next frame of ours, nil if none comes for a moment. The
// frame is good until the next call.
func (t *tap) next() []byte {
	for {
		n, _, err := unix.Recvfrom(t.fd, t.buf, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil
		}
		if ours(t.buf[:n]) {
			return t.buf[:n]
		}
	}
}

// ours says whether a frame is a test's and not a neighbour's solicitation.
func ours(frame []byte) bool {
	l, ok := packet.Parse(frame)
	if !ok || l.Payload == 0 {
		return false
	}
	src, _ := l.Addresses(frame)
	ip, _ := netip.AddrFromSlice(src)
	return ip == spoofed4 || ip == spoofed6
}

// take returns copies of the next n frames of ours.
func (t *tap) take(tb testing.TB, n int) [][]byte {
	tb.Helper()
	var frames [][]byte
	for deadline := time.Now().Add(patience); len(frames) < n; {
		if f := t.next(); f != nil {
			frames = append(frames, append([]byte(nil), f...))
		} else if time.Now().After(deadline) {
			tb.Fatalf("%d frames arrived, want %d", len(frames), n)
		}
	}
	return frames
}

// macs of a link in the network namespace of the calling thread and of its
// peer do not matter: the peer is a tap. But an interface that has the frame
// for itself answers it.
var (
	nobody = []byte{2, 0, 0, 0, 0, 2}
	us     = []byte{2, 0, 0, 0, 0, 1}
)

// build makes a frame from a spoofed source to the client, with a payload that
// is different in every byte and from seed to seed. Checksums are not computed.
func build(v6 bool, protocol byte, payload, seed int) []byte {
	head := packet.UDPHeader
	if protocol == unix.IPPROTO_TCP {
		head = packet.TCPHeader
	}
	f := append(append([]byte(nil), nobody...), us...)
	if v6 {
		f = binary.BigEndian.AppendUint16(f, unix.ETH_P_IPV6)
		f = append(f, 0x60, 0, 0, 0)
		f = binary.BigEndian.AppendUint16(f, uint16(head+payload))
		f = append(f, protocol, 64)
		f = append(f, spoofed6.AsSlice()...)
		f = append(f, client6.AsSlice()...)
	} else {
		f = binary.BigEndian.AppendUint16(f, unix.ETH_P_IP)
		f = append(f, 0x45, 0)
		f = binary.BigEndian.AppendUint16(f, uint16(20+head+payload))
		f = append(f, 0x12, byte(seed)|1, 0x40, 0, 64, protocol, 0, 0)
		f = append(f, spoofed4.AsSlice()...)
		f = append(f, client4.AsSlice()...)
	}
	f = binary.BigEndian.AppendUint16(f, 4000)
	f = binary.BigEndian.AppendUint16(f, discard)
	if protocol == unix.IPPROTO_TCP {
		f = append(f, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x18, 0xff, 0xff, 0, 0, 0, 0)
	} else {
		f = binary.BigEndian.AppendUint16(f, uint16(head+payload))
		f = append(f, 0, 0)
	}
	for i := range payload {
		f = append(f, byte(i*7+seed+i>>8))
	}
	return f
}

// sized makes n frames with payloads of all sizes, checksums computed.
func sized(v6 bool, n, largest int) [][]byte {
	var frames [][]byte
	for i := range n {
		f := build(v6, unix.IPPROTO_UDP, i*largest/max(1, n-1), i)
		l, _ := packet.Parse(f)
		l.SetChecksums(f)
		frames = append(frames, f)
	}
	return frames
}

// asFrames lends copies, as sending may write checksums.
func asFrames(data [][]byte) []Frame {
	var frames []Frame
	for _, d := range data {
		frames = append(frames, Frame{Data: append([]byte(nil), d...)})
	}
	return frames
}

func mustOpen(t testing.TB, cfg Config) *Sender {
	t.Helper()
	s, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// wantStats compares exactly; a ring is drained first.
func wantStats(t *testing.T, s *Sender, sent, refused uint64) {
	t.Helper()
	if err := s.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	got := s.Stats()
	if got.Sent != sent || got.Refused != refused || got.InFlight != 0 || got.Queued != 0 {
		t.Errorf("%+v, want %d sent and %d refused", got, sent, refused)
	}
}

// part is what of a frame has to arrive by a method, unchanged.
func part(m Method, frame []byte) string {
	l, _ := packet.Parse(frame)
	src, dst := l.Addresses(frame)
	switch m {
	case SpliceRaw:
		return string(frame[l.L3:l.End])
	case SpliceUDP:
		return fmt.Sprintf("%x > %x, ports %x: %x", src, dst, frame[l.L4:l.L4+4], frame[l.Payload:l.End])
	default:
		return string(frame)
	}
}

func families(t *testing.T, test func(t *testing.T, v6 bool)) {
	for name, v6 := range map[string]bool{"IPv4": false, "IPv6": true} {
		t.Run(name, func(t *testing.T) { test(t, v6) })
	}
}
