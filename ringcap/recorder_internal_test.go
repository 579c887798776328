package ringcap

import (
	"testing"

	"github.com/tproxyd/tproxyd/internal/tpacket"
	"github.com/tproxyd/tproxyd/internal/tpacket/tpackettest"
)

// BenchmarkRecorder is the recorder's work per packet of 64 bytes, with blocks
// that the test fills: taking a block, counting it, keeping it, and giving the
// oldest back.
func BenchmarkRecorder(b *testing.B) {
	const blocks, size = 8, 256 << 10
	packets := make([]tpackettest.Packet, 1<<13)
	for i := range packets {
		packets[i].Data = make([]byte, 60)
	}
	r := &Ring{geo: tpacket.Geometry{BlockSize: size, Blocks: blocks}, mem: &mapping{}, blocks: make([]Block, blocks)}
	r.mem.refs.Store(1)
	perBlock := 0
	for i := range r.blocks {
		r.blocks[i].ring, r.blocks[i].mem = r, tpackettest.Aligned(size)
		perBlock = tpackettest.Ring{VNet: true, Reserve: reserveVNet}.Fill(r.blocks[i].mem, uint64(i), packets...)
	}
	recorder := Recorder{ring: r, spare: 2}
	b.ReportAllocs()
	b.ResetTimer()
	for n := 0; n < b.N; n += perBlock {
		tpackettest.Close(r.blocks[r.next].mem)
		r.drain(func(block *Block, err error) bool {
			if err != nil {
				b.Fatal(err)
			}
			recorder.keep(block, blocks-recorder.spare)
			return true
		}, unseen)
	}
	b.StopTimer()
	if r.taken.Load() < uint64(b.N) {
		b.Fatalf("%d packets taken of %d", r.taken.Load(), b.N)
	}
	recorder.trim(0)
}
