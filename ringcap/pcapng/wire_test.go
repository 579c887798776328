package pcapng_test

import (
	"bytes"
	"encoding/binary"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tproxyd/tproxyd/internal/tpacket"
	"github.com/tproxyd/tproxyd/internal/tpacket/tpackettest"
	"github.com/tproxyd/tproxyd/ringcap/pcapng"
)

// TestWire cuts a super-frame on its way to the file, and nothing else.
func TestWire(t *testing.T) {
	super := make([]byte, 14+40+8+2500)
	binary.BigEndian.PutUint16(super[12:], unix.ETH_P_IPV6)
	super[14+6] = unix.IPPROTO_UDP
	vnet := &tpacket.VNet{GSOType: tpacket.GSOUDPL4, GSOSize: 1200}
	ring := tpackettest.Ring{Reserve: 4, VNet: true}
	mem := ring.Block(64<<10,
		tpackettest.Packet{Data: super, VNet: vnet, VLAN: &tpacket.VLAN{TPID: unix.ETH_P_8021Q, TCI: 5}, Nanos: 1},
		tpackettest.Packet{Data: super, VNet: vnet, Len: len(super) + 1, Nanos: 2}, // cut by the filter
		tpackettest.Packet{Data: super, Nanos: 3},
	)
	for _, tt := range []struct {
		snap int
		want [5]int // captured lengths
	}{{0, [5]int{1266, 1266, 166, 2562, 2562}}, {100, [5]int{104, 104, 104, 100, 100}}, {8, [5]int{8, 8, 8, 8, 8}}} {
		var b tpacket.Block
		if ok, err := b.Load(mem, true); !ok || err != nil {
			t.Fatal(ok, err)
		}
		e := pcapng.Encoder{Wire: true, Default: pcapng.Tag{ID: 7, Snap: tt.snap}}
		got := parse(t, e.Copy(nil, &b))
		if len(got) != 5 || e.Packets() != 5 {
			t.Fatalf("%d packets, %d counted, want 5", len(got), e.Packets())
		}
		for i, p := range got {
			if len(p.Data) != tt.want[i] || p.ID != 7 {
				t.Errorf("snap %d: packet %d has %d bytes, want %d", tt.snap, i, len(p.Data), tt.want[i])
			}
			if i < 3 && (p.Size != 0 || p.Len != [3]int{1266, 1266, 166}[i]) {
				t.Errorf("piece %d says %+v", i, p.Len)
			}
		}
	}
}

// TestTagComment writes a comment of a tag once for each frame by Copy, also of
// a frame that is cut, and never where there is no room.
func TestTagComment(t *testing.T) {
	super := make([]byte, 14+40+8+2500)
	binary.BigEndian.PutUint16(super[12:], unix.ETH_P_IPV6)
	super[14+6] = unix.IPPROTO_UDP
	ring := tpackettest.Ring{Reserve: 4, VNet: true}
	for _, wire := range []bool{false, true} {
		mem := ring.Block(64<<10,
			tpackettest.Packet{Data: super, VNet: &tpacket.VNet{GSOType: tpacket.GSOUDPL4, GSOSize: 1200}, Nanos: 1},
			tpackettest.Packet{Data: super, Nanos: 2},
		)
		var b tpacket.Block
		if ready, err := b.Load(mem, true); !ready || err != nil {
			t.Fatal(ready, err)
		}
		e := pcapng.Encoder{Wire: wire, Pick: func(tpacket.Frame) (pcapng.Tag, bool) {
			return pcapng.Tag{ID: 7, Comment: "what it is"}, true
		}}
		if n := bytes.Count(e.Copy(nil, &b), []byte("what it is")); n != 2 {
			t.Errorf("wire %v: %d comments of two frames", wire, n)
		}
		e.Wire = false
		if n := bytes.Count(e.Compact(&b), []byte("what it is")); n != 0 {
			t.Errorf("%d comments in a compact block", n)
		}
	}
}
