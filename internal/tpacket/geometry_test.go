package tpacket_test

import (
	"testing"

	"github.com/tproxyd/tproxyd/internal/tpacket"
)

func TestGeometryCheck(t *testing.T) {
	for _, tt := range []struct {
		g  tpacket.Geometry
		ok bool
	}{
		{tpacket.Geometry{BlockSize: 1 << 20, Blocks: 64}, true},
		{tpacket.Geometry{BlockSize: 4096, Blocks: 2}, true},
		{tpacket.Geometry{BlockSize: 2048, Blocks: 2}, false},
		{tpacket.Geometry{BlockSize: 3 << 12, Blocks: 2}, false},
		{tpacket.Geometry{BlockSize: 1 << 20, Blocks: 1}, false},
		{tpacket.Geometry{BlockSize: 1 << 31, Blocks: 2}, false},
		{tpacket.Geometry{BlockSize: 1 << 30, Blocks: 65}, false},
		{tpacket.Geometry{}, false},
	} {
		if err := tt.g.Check(4096); (err == nil) != tt.ok {
			t.Errorf("%+v: Check = %v", tt.g, err)
		}
	}
}

// TestHalve checks that halving ends, never at something Check refuses, and
// frees memory each time.
func TestHalve(t *testing.T) {
	g := tpacket.Geometry{BlockSize: 1 << 20, Blocks: 64}
	for {
		smaller, ok := g.Halve(4096)
		if !ok {
			break
		}
		if err := smaller.Check(4096); err != nil || smaller.Bytes() >= g.Bytes() {
			t.Fatalf("%+v halved to %+v: %v", g, smaller, err)
		}
		g = smaller
	}
	if g.Bytes() > 128<<10 {
		t.Errorf("halving ended at %+v", g)
	}
}

func TestMac(t *testing.T) {
	for _, tt := range []struct {
		reserve int
		vnet    bool
		want    int
	}{{0, false, 82}, {2, false, 84}, {0, true, 92}, {4, true, 96}} {
		if got := tpacket.Mac(tt.reserve, tt.vnet); got != tt.want {
			t.Errorf("Mac(%d, %v) = %d, want %d", tt.reserve, tt.vnet, got, tt.want)
		}
	}
}

func TestRequest(t *testing.T) {
	r := tpacket.Geometry{BlockSize: 1 << 20, Blocks: 64}.Request(10)
	// The kernel's own sum: packet_set_ring.
	if r.Block_size/r.Frame_size*r.Block_nr != r.Frame_nr || r.Frame_size%16 != 0 || r.Retire_blk_tov != 10 {
		t.Errorf("request %+v would be refused", r)
	}
}
