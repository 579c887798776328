package zcsend

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/tproxyd/tproxyd/internal/lab"
	"github.com/tproxyd/tproxyd/internal/packet"
)

// TestDeliver sends frames of all sizes by each method, from sources that
// nobody has, and wants them on the other side byte for byte and in order.
func TestDeliver(t *testing.T) {
	const n = 500
	b := newBed(t)
	for _, m := range Methods() {
		t.Run(m.String(), func(t *testing.T) {
			families(t, func(t *testing.T, v6 bool) {
				s := mustOpen(t, Config{Interface: lab.ClientLink, Method: m})
				largest := 1500 - 28
				if v6 {
					largest = 1500 - 48
				}
				want := sized(v6, n, largest)
				if sent, err := s.Send(t.Context(), asFrames(want)); sent != n || err != nil {
					t.Fatalf("sent %d: %v", sent, err)
				}
				for i, got := range b.tap.take(t, n) {
					if part(m, got) != part(m, want[i]) {
						t.Fatalf("frame %d:\n got %x\nwant %x", i, got, want[i])
					}
					if m == SpliceUDP {
						wantChecksums(t, got)
					}
				}
				wantStats(t, s, n, 0)
			})
		})
	}
}

// TestReserve fills frames where they lie, with checksums left to the Sender.
func TestReserve(t *testing.T) {
	const n = 300
	b := newBed(t)
	for _, m := range Methods() {
		t.Run(m.String(), func(t *testing.T) {
			s := mustOpen(t, Config{Interface: lab.ClientLink, Method: m, Batch: 32})
			want := sized(false, n, 1400)
			for _, f := range want {
				room, err := s.Reserve(t.Context(), len(f)+40) // commits less than it reserves
				if err != nil {
					t.Fatal(err)
				}
				copy(room, f)
				l, _ := packet.Parse(room[:len(f)])
				room[l.L4+6] ^= 0x55
				if err := s.Commit(Frame{Data: room[:len(f)], Checksum: true}); err != nil {
					t.Fatal(err)
				}
			}
			if err := s.Flush(t.Context()); err != nil {
				t.Fatal(err)
			}
			for i, got := range b.tap.take(t, n) {
				if part(m, got) != part(m, want[i]) {
					t.Fatalf("frame %d:\n got %x\nwant %x", i, got, want[i])
				}
			}
			wantStats(t, s, n, 0)
		})
	}
}

// wantChecksums wants those that the sender of a frame has to make. A veth
// leaves the transport's to its peer: there is the sum of the pseudo header.
func wantChecksums(t *testing.T, frame []byte) {
	t.Helper()
	l, _ := packet.Parse(frame)
	right := append([]byte(nil), frame...)
	if !l.SetChecksums(right) {
		t.Fatalf("not a whole packet: %x", frame)
	}
	if bytes.Equal(frame, right) {
		return
	}
	offset, _ := l.ChecksumOffset()
	binary.BigEndian.PutUint16(right[l.L4+offset:], ^packet.Fold(l.Pseudo(frame, l.End-l.L4)))
	if !bytes.Equal(frame, right) {
		t.Errorf("wrong checksum in %x", frame[:l.Payload])
	}
}

// TestSuperFrames wants a super-frame to arrive whole at a device that takes
// it, and cut into the right frames where the kernel has to.
func TestSuperFrames(t *testing.T) {
	const segment, size = 1000, 40_500
	b := newBed(t)
	for name, cfg := range map[string]Config{
		"gso":  {Method: GSO},
		"ring": {Method: Ring, SuperFrames: true},
	} {
		for proto, protocol := range map[string]byte{"TCP": unix.IPPROTO_TCP, "UDP": unix.IPPROTO_UDP} {
			t.Run(name+"/"+proto, func(t *testing.T) {
				families(t, func(t *testing.T, v6 bool) {
					cfg.Interface = lab.ClientLink
					s := mustOpen(t, cfg)
					want := build(v6, protocol, size, 3)
					super := Frame{Data: append([]byte(nil), want...), SegmentSize: segment}

					if n, err := s.Send(t.Context(), []Frame{super}); n != 1 || err != nil {
						t.Fatalf("sent %d: %v", n, err)
					}
					l, _ := packet.Parse(want)
					if got := b.tap.take(t, 1)[0]; !bytes.Equal(got[l.Payload:], want[l.Payload:]) {
						t.Errorf("arrived otherwise: %d bytes", len(got))
					}

					limitSuper(t, 8000)
					defer limitSuper(t, 65536)
					if n, err := s.Send(t.Context(), []Frame{super}); n != 1 || err != nil {
						t.Fatalf("sent %d: %v", n, err)
					}
					wantCut(t, b.tap.take(t, (size+segment-1)/segment), want[l.Payload:], segment)
					wantStats(t, s, 2, 0)
				})
			})
		}
	}
}

// limitSuper makes the kernel cut what is longer before the device gets it.
func limitSuper(t *testing.T, size int) {
	t.Helper()
	link, err := netlink.LinkByName(lab.ClientLink)
	if err == nil {
		err = errors.Join(netlink.LinkSetGSOMaxSize(link, size), netlink.LinkSetGSOIPv4MaxSize(link, size))
	}
	if err != nil {
		t.Fatal(err)
	}
}

// wantCut wants frames that are a payload in order, each with right headers.
func wantCut(t *testing.T, frames [][]byte, payload []byte, segment int) {
	t.Helper()
	var got []byte
	for i, f := range frames {
		l, _ := packet.Parse(f)
		wantChecksums(t, f)
		if n := l.End - l.Payload; n > segment {
			t.Errorf("frame %d has %d bytes of payload", i, n)
		}
		got = append(got, f[l.Payload:l.End]...)
	}
	if !bytes.Equal(got, payload) {
		t.Errorf("the payload of %d frames is not what was sent", len(frames))
	}
}

// TestShortSuperFrame wants one that needs no cutting to leave as an ordinary
// frame.
func TestShortSuperFrame(t *testing.T) {
	b := newBed(t)
	s := mustOpen(t, Config{Interface: lab.ClientLink, Method: GSO})
	want := sized(true, 2, 1000)[1]
	padded := append(append([]byte(nil), want...), 0, 0, 0)
	if _, err := s.Send(t.Context(), []Frame{{Data: padded, SegmentSize: 1200}}); err != nil {
		t.Fatal(err)
	}
	if got := b.tap.take(t, 1)[0]; !bytes.Equal(got, want) {
		t.Errorf("\n got %x\nwant %x", got, want)
	}
}

// TestBypass wants frames that bypass the queueing discipline to arrive, and
// taps of the interface not to see them; and to see all others.
func TestBypass(t *testing.T) {
	const n = 100
	for _, m := range []Method{Ring, MMsg} {
		for _, bypass := range []bool{true, false} {
			t.Run(m.String(), func(t *testing.T) {
				b := newBed(t)
				own, err := openTap(lab.ClientLink)
				if err != nil {
					t.Fatal(err)
				}
				defer own.close()
				s := mustOpen(t, Config{Interface: lab.ClientLink, Method: m, Bypass: bypass})
				want := sized(false, n, 1000)
				if _, err := s.Send(t.Context(), asFrames(want)); err != nil {
					t.Fatal(err)
				}
				b.tap.take(t, n)
				// A frame by another way marks the end of what the tap can have seen.
				last := mustOpen(t, Config{Interface: lab.ClientLink, Method: MMsg})
				mark := sized(true, 1, 0)
				if _, err := last.Send(t.Context(), asFrames(mark)); err != nil {
					t.Fatal(err)
				}
				seen := 0
				for !bytes.Equal(own.take(t, 1)[0], mark[0]) {
					seen++
				}
				if want := map[bool]int{true: 0, false: n}[bypass]; seen != want {
					t.Errorf("bypass %v: a tap saw %d frames, want %d", bypass, seen, want)
				}
				wantStats(t, s, n, 0)
			})
		}
	}
}
