package tpacket_test

import (
	"encoding/binary"
	"errors"
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/tproxyd/tproxyd/internal/tpacket"
	"github.com/tproxyd/tproxyd/internal/tpacket/tpackettest"
)

var ne = binary.NativeEndian

// seen is everything that a frame says.
type seen struct {
	Data  string
	Len   int
	Nanos int64
	Type  uint8
	VLAN  tpacket.VLAN
	VNet  tpacket.VNet
}

func walk(t testing.TB, b *tpacket.Block) []seen {
	t.Helper()
	var all []seen
	for f := range b.Frames() {
		s := seen{Data: string(f.Data()), Len: f.Len(), Nanos: f.Nanos(), Type: f.Type()}
		s.VLAN, _ = f.VLAN()
		s.VNet, _ = f.VNet()
		all = append(all, s)
	}
	return all
}

func load(t testing.TB, mem []byte, vnet bool) *tpacket.Block {
	t.Helper()
	var b tpacket.Block
	if ready, err := b.Load(mem, vnet); !ready || err != nil {
		t.Fatalf("Load = %v, %v", ready, err)
	}
	return &b
}

func TestFrames(t *testing.T) {
	for _, ring := range []tpackettest.Ring{{}, {Reserve: 2}, {VNet: true}, {Reserve: 4, VNet: true}} {
		vlan := tpacket.VLAN{TPID: unix.ETH_P_8021AD, TCI: 0x2064}
		vnet := tpacket.VNet{Flags: 1, GSOType: tpacket.GSOTCPv4, HeaderLen: 66, GSOSize: 1448, CsumStart: 34, CsumAtOff: 16}
		mem := ring.Block(1<<16,
			tpackettest.Packet{Data: []byte("first"), Nanos: 1_700_000_000_123_456_789, Type: unix.PACKET_OUTGOING},
			tpackettest.Packet{Data: []byte("stale"), Stale: true},
			tpackettest.Packet{Data: []byte("tagged"), VLAN: &vlan, VNet: &vnet, Type: unix.PACKET_HOST},
			tpackettest.Packet{Data: nil},
			tpackettest.Packet{Data: []byte("cut"), Len: 65226},
		)
		b := load(t, mem, ring.VNet)
		want := []seen{
			{Data: "first", Len: 5, Nanos: 1_700_000_000_123_456_789, Type: unix.PACKET_OUTGOING},
			{Data: "tagged", Len: 6, VLAN: vlan},
			{},
			{Data: "cut", Len: 65226},
		}
		if ring.VNet {
			want[1].VNet = vnet
		}
		if diff := cmp.Diff(want, walk(t, b)); diff != "" {
			t.Errorf("%+v: frames (-want +got):\n%s", ring, diff)
		}
		if b.Skipped() != 1 || b.Err() != nil || b.Count() != 5 || b.Sequence() != 1 {
			t.Errorf("%+v: skipped %d, err %v, count %d, sequence %d", ring, b.Skipped(), b.Err(), b.Count(), b.Sequence())
		}
		first, last := b.Nanos()
		if first != 1_700_000_000_123_456_789 || last != 0 {
			t.Errorf("times %d, %d", first, last)
		}
		b.Release()
		if !tpackettest.Free(mem) {
			t.Error("block not the kernel's after Release")
		}
	}
}

// TestFramesNested checks that the body may leave early, write over its own
// header, and walk again.
func TestFramesNested(t *testing.T) {
	mem := tpackettest.Ring{}.Block(4096, tpackettest.Packet{Data: []byte("a")}, tpackettest.Packet{Data: []byte("b")})
	b := load(t, mem, false)
	for f := range b.Frames() {
		if string(f.Data()) != "a" {
			t.Errorf("first frame is %q", f.Data())
		}
		break
	}
	var got string
	for f := range b.Frames() {
		got += string(f.Data())
		raw, mac := f.Raw()
		clear(raw[:mac])
	}
	if got != "ab" {
		t.Errorf("walk while headers are overwritten gave %q, want ab", got)
	}
}

func TestLoadRefuses(t *testing.T) {
	good := tpackettest.Ring{}.Block(4096, tpackettest.Packet{Data: make([]byte, 100)}, tpackettest.Packet{Data: make([]byte, 100)})
	for _, tt := range []struct {
		name string
		off  int
		v    uint32
		want error
	}{
		{"version 1", 0, unix.TPACKET_V1, tpacket.ErrVersion},
		{"version 4", 0, 3, tpacket.ErrVersion},
		{"first in header", 16, 40, tpacket.ErrBlock},
		{"first unaligned", 16, 52, tpacket.ErrBlock},
		{"first outside", 16, 4096, tpacket.ErrBlock},
		{"first far outside", 16, math.MaxUint32 - 7, tpacket.ErrBlock},
	} {
		t.Run(tt.name, func(t *testing.T) {
			mem := tpackettest.Clone(good)
			ne.PutUint32(mem[tt.off:], tt.v)
			var b tpacket.Block
			ready, err := b.Load(mem, false)
			if !ready || !errors.Is(err, tt.want) {
				t.Fatalf("Load = %v, %v, want true, %v", ready, err, tt.want)
			}
			if n := len(walk(t, &b)); n != 0 {
				t.Errorf("%d frames of a refused block", n)
			}
			b.Release()
			if !tpackettest.Free(mem) {
				t.Error("a refused block cannot be released")
			}
		})
	}
}

func TestFramesRefuse(t *testing.T) {
	good := tpackettest.Ring{}.Block(4096, tpackettest.Packet{Data: make([]byte, 100)}, tpackettest.Packet{Data: make([]byte, 100)})
	put16 := func(mem []byte, off int, v uint32) { ne.PutUint16(mem[off:], uint16(v)) }
	put32 := func(mem []byte, off int, v uint32) { ne.PutUint32(mem[off:], v) }
	const frame = tpacket.BlockHeaderLen
	for _, tt := range []struct {
		name  string
		put   func(mem []byte, off int, v uint32)
		off   int
		v     uint32
		whole int // frames before the error
	}{
		{"next outside", put32, frame, 4096, 1},
		{"next far outside", put32, frame, math.MaxUint32 &^ 7, 1},
		{"next nothing", put32, frame, 0, 1},
		{"next unaligned", put32, frame, 189, 1},
		{"next in packet", put32, frame, 104, 0},
		{"snaplen outside", put32, frame + 12, 4096, 0},
		{"snaplen wraps", put32, frame + 12, math.MaxUint32, 0},
		{"mac in header", put16, frame + 24, 47, 0},
		{"mac outside", put16, frame + 24, math.MaxUint16, 0},
		{"count too high", put32, 12, 3, 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			mem := tpackettest.Clone(good)
			tt.put(mem, tt.off, tt.v)
			b := load(t, mem, false)
			if got := len(walk(t, b)); got != tt.whole || !errors.Is(b.Err(), tpacket.ErrFrame) {
				t.Errorf("%d frames, err %v, want %d and %v", got, b.Err(), tt.whole, tpacket.ErrFrame)
			}
		})
	}
	// With virtio headers the packet starts ten bytes further at the earliest.
	mem := tpackettest.Clone(good)
	put16(mem, frame+24, 70)
	if b := load(t, mem, true); len(walk(t, b)) != 0 || b.Err() == nil {
		t.Error("a virtio header that reaches into sockaddr_ll was accepted")
	}
}

func TestFramesAllocate(t *testing.T) {
	mem := tpackettest.Ring{}.Block(4096, tpackettest.Packet{Data: make([]byte, 60)}, tpackettest.Packet{Data: make([]byte, 60)})
	var b tpacket.Block
	sum := 0
	if n := testing.AllocsPerRun(100, func() {
		if _, err := b.Load(mem, false); err != nil {
			t.Fatal(err)
		}
		for f := range b.Frames() {
			sum += len(f.Data()) + int(f.Nanos())
		}
	}); n != 0 {
		t.Errorf("a walk allocates %v times", n)
	}
}

func FuzzBlock(f *testing.F) {
	f.Add([]byte(tpackettest.Ring{}.Block(4096, tpackettest.Packet{Data: make([]byte, 60)}, tpackettest.Packet{Data: make([]byte, 1500)})), false)
	f.Add([]byte(tpackettest.Ring{VNet: true, Reserve: 4}.Block(1024, tpackettest.Packet{Data: make([]byte, 60)}, tpackettest.Packet{Stale: true, Data: make([]byte, 8)})), true)
	f.Fuzz(func(t *testing.T, raw []byte, vnet bool) {
		if len(raw) < tpacket.BlockHeaderLen {
			return
		}
		mem := tpackettest.Clone(raw)
		var b tpacket.Block
		ready, err := b.Load(mem, vnet)
		if !ready {
			return
		}
		n := 0
		for fr := range b.Frames() {
			n++
			data, _ := fr.Raw()
			if len(data) > len(mem) || len(fr.Data()) > len(data) {
				t.Fatalf("frame of %d bytes in a block of %d", len(data), len(mem))
			}
			_, _ = fr.VLAN()
			_, _ = fr.VNet()
			_, _, _, _ = fr.Nanos(), fr.Len(), fr.Type(), fr.Ifindex()
		}
		if err != nil && n > 0 || n+b.Skipped() > b.Count() {
			t.Fatalf("%d frames and %d skipped of %d, load error %v", n, b.Skipped(), b.Count(), err)
		}
		// No frame is smaller than its header, so a walk always ends in time.
		if (n+b.Skipped())*tpacket.FrameHeaderLen > len(mem) {
			t.Fatalf("%d frames in %d bytes", n, len(mem))
		}
	})
}

func BenchmarkFrames(b *testing.B) {
	for _, size := range []int{60, 1514} {
		b.Run(map[int]string{60: "64", 1514: "1514"}[size], func(b *testing.B) {
			packets := make([]tpackettest.Packet, 1<<16)
			for i := range packets {
				packets[i].Data = make([]byte, size)
			}
			mem := tpackettest.Aligned(256 << 10)
			n := tpackettest.Ring{}.Fill(mem, 1, packets...)
			tpackettest.Close(mem)
			var blk tpacket.Block
			sum := 0
			b.ReportAllocs()
			b.ResetTimer()
			for i := 0; i < b.N; i += n {
				if ready, err := blk.Load(mem, false); !ready || err != nil {
					b.Fatal(ready, err)
				}
				for f := range blk.Frames() {
					sum += len(f.Data())
				}
			}
			if blk.Err() != nil || sum == 0 {
				b.Fatal(blk.Err(), sum)
			}
		})
	}
}
