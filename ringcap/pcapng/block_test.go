package pcapng_test

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/tproxyd/tproxyd/internal/tpacket"
	"github.com/tproxyd/tproxyd/internal/tpacket/tpackettest"
	"github.com/tproxyd/tproxyd/ringcap/pcapng"
)

// rings are as ringcap makes them, and one whose packets lie askew.
var rings = []tpackettest.Ring{{Reserve: 2}, {Reserve: 4, VNet: true}, {}}

func random(r *rand.Rand, n int) []tpackettest.Packet {
	all := make([]tpackettest.Packet, n)
	for i := range all {
		size := []int{0, 1, 14, 60, 61, 62, 63, 1514, 9000}[r.IntN(9)]
		p := tpackettest.Packet{Data: make([]byte, size), Nanos: 1_700_000_000_000_000_000 + int64(i), Type: uint8(r.IntN(5))}
		for j := range p.Data {
			p.Data[j] = byte(r.Uint32())
		}
		if r.IntN(3) == 0 {
			p.VLAN = &tpacket.VLAN{TPID: unix.ETH_P_8021Q, TCI: uint16(r.Uint32())}
		}
		if r.IntN(3) == 0 {
			p.VNet = &tpacket.VNet{Flags: 1, GSOType: tpacket.GSOTCPv4, GSOSize: 1448, HeaderLen: 54}
			p.Len = size + r.IntN(100)
		}
		p.Stale = r.IntN(8) == 0
		all[i] = p
	}
	return all
}

// pick leaves out every fifth packet and cuts some.
func pick(f tpacket.Frame) (pcapng.Tag, bool) {
	n := f.Nanos() % 1_000_000
	tag := pcapng.Tag{Interface: uint32(n % 3), ID: uint64(n % 4)}
	if n%7 == 0 {
		tag.Snap = 50
	}
	return tag, n%5 != 0
}

// TestEncodingsAgree fills blocks to their end with random packets: copied,
// compacted and in place they have to be the same.
func TestEncodingsAgree(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	for round := range 300 {
		ring := rings[round%len(rings)]
		dirty := tpackettest.Aligned(32 << 10)
		for i := range dirty {
			dirty[i] = 0xa5 // what older packets left
		}
		ring.Fill(dirty, 1, random(r, 1+r.IntN(60))...)
		tpackettest.Close(dirty)
		load := func() *tpacket.Block {
			var b tpacket.Block
			if ok, err := b.Load(tpackettest.Clone(dirty), ring.VNet); !ok || err != nil {
				t.Fatal(ok, err)
			}
			return &b
		}
		e := pcapng.Encoder{Default: pcapng.Tag{ID: 9}}
		if round%2 == 1 {
			e.Pick = pick
		}
		want := parse(t, e.Copy(nil, load()))
		if e.Packets() != len(want) {
			t.Fatalf("Packets = %d, copied %d", e.Packets(), len(want))
		}
		compact := load()
		if got := parse(t, e.Compact(compact)); !slices.Equal(got, want) || e.Packets() != len(want) {
			t.Fatalf("round %d: compact (-copy +compact):\n%s", round, cmp.Diff(want, got))
		}
		placed := load()
		run, tail := e.InPlace(placed)
		got := append(parse(t, run), parse(t, tail)...)
		if !slices.Equal(got, want) || e.Packets() != len(want) {
			t.Fatalf("round %d: in place (-copy +in place):\n%s", round, cmp.Diff(want, got))
		}
		for _, b := range []*tpacket.Block{compact, placed} {
			if !tpacket.Ready(b.Bytes()) {
				t.Fatal("encoding changed the owner")
			}
		}
		for i := range run {
			if run[i] == 0xa5 && ring.Reserve != 0 && i > 4 && run[i-1] == 0xa5 && run[i-2] == 0xa5 && run[i-3] == 0xa5 {
				t.Fatalf("round %d: old bytes at %d of %d", round, i, len(run))
			}
		}
	}
}

// TestSkippedAreAbsorbed leaves out so much between two packets that one
// option cannot cover it.
func TestSkippedAreAbsorbed(t *testing.T) {
	ring := tpackettest.Ring{Reserve: 2}
	for gap := 65_300; gap < 65_600; gap += 8 {
		mem := ring.Block(1<<18,
			tpackettest.Packet{Data: []byte("first packet"), Nanos: 1},
			tpackettest.Packet{Data: make([]byte, gap), Nanos: 5},
			tpackettest.Packet{Data: []byte("last packet"), Nanos: 2})
		var b tpacket.Block
		if ok, err := b.Load(mem, false); !ok || err != nil {
			t.Fatal(ok, err)
		}
		e := pcapng.Encoder{Pick: pick}
		run, _ := e.InPlace(&b)
		if got := parse(t, run); len(got) != 2 || got[0].Data != "first packet" || got[1].Data != "last packet" {
			t.Fatalf("gap %d: %d packets", gap, len(got))
		}
	}
}

func TestEncodersAllocate(t *testing.T) {
	ring := tpackettest.Ring{Reserve: 2}
	src := ring.Block(16<<10, tpackettest.Packet{Data: make([]byte, 60)}, tpackettest.Packet{Data: make([]byte, 1514)})
	mem := tpackettest.Clone(src)
	buf := make([]byte, 0, 16<<10)
	e := pcapng.Encoder{Pick: pick}
	var b tpacket.Block
	for name, encode := range map[string]func(){
		"copy":     func() { e.Copy(buf, &b) },
		"compact":  func() { e.Compact(&b) },
		"in place": func() { e.InPlace(&b) },
	} {
		if n := testing.AllocsPerRun(50, func() {
			copy(mem, src)
			if ok, err := b.Load(mem, false); !ok || err != nil {
				t.Fatal(ok, err)
			}
			encode()
		}); n != 0 {
			t.Errorf("%s allocates %v times", name, n)
		}
	}
}

// FuzzEncodings turns arbitrary bytes into blocks: whatever the walk accepts
// is encoded alike in all ways.
func FuzzEncodings(f *testing.F) {
	for _, ring := range rings {
		mem := tpackettest.Aligned(8 << 10)
		ring.Fill(mem, 1, random(rand.New(rand.NewPCG(1, 1)), 20)...)
		tpackettest.Close(mem)
		f.Add([]byte(mem), ring.VNet)
	}
	f.Fuzz(func(t *testing.T, raw []byte, vnet bool) {
		if len(raw) < 256 || len(raw)%8 != 0 {
			return
		}
		e := pcapng.Encoder{Default: pcapng.Tag{ID: 3}}
		var b tpacket.Block
		if ok, err := b.Load(tpackettest.Clone(raw), vnet); !ok || err != nil {
			return
		}
		want := parse(t, e.Copy(nil, &b))
		if b.Err() != nil {
			return // walks that end early are the reader's affair
		}
		for f := range b.Frames() {
			if _, mac := f.Raw(); mac < tpacket.Mac(0, vnet) {
				return // closer to its header than any kernel puts it
			}
		}
		if _, err := b.Load(tpackettest.Clone(raw), vnet); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, parse(t, e.Compact(&b))); diff != "" {
			t.Fatal(diff)
		}
		if _, err := b.Load(tpackettest.Clone(raw), vnet); err != nil {
			t.Fatal(err)
		}
		run, tail := e.InPlace(&b)
		if diff := cmp.Diff(want, append(parse(t, run), parse(t, tail)...)); diff != "" {
			t.Fatal(diff)
		}
	})
}

func BenchmarkEncode(b *testing.B) {
	for _, size := range []int{60, 1514} {
		packets := make([]tpackettest.Packet, 1<<13)
		for i := range packets {
			packets[i].Data = make([]byte, size)
		}
		src := tpackettest.Aligned(256 << 10)
		n := tpackettest.Ring{Reserve: 2}.Fill(src, 1, packets...)
		tpackettest.Close(src)
		mem, buf := tpackettest.Clone(src), make([]byte, 0, 512<<10)
		var e pcapng.Encoder
		var blk tpacket.Block
		for name, encode := range map[string]func(){
			"copy":    func() { e.Copy(buf, &blk) },
			"compact": func() { e.Compact(&blk) },
			"inplace": func() { e.InPlace(&blk) },
		} {
			b.Run(map[int]string{60: "64", 1514: "1514"}[size]+"/"+name, func(b *testing.B) {
				b.ReportAllocs()
				copy(mem, src) // the one before may have turned it
				for i := 0; i < b.N; i += n {
					if name != "copy" {
						b.StopTimer()
						copy(mem, src)
						b.StartTimer()
					}
					if ok, err := blk.Load(mem, false); !ok || err != nil {
						b.Fatal(ok, err)
					}
					encode()
				}
			})
		}
	}
}
