package tpackettest_test

import (
	"fmt"
	"testing"

	"github.com/tproxyd/tproxyd/internal/tpacket/tpackettest"
)

// A block changes hands by its status word.
func Example() {
	block := tpackettest.Aligned(4096)
	n := tpackettest.Ring{}.Fill(block, 7, tpackettest.Packet{Data: []byte("packet")})
	fmt.Println(n, tpackettest.Free(block))
	tpackettest.Close(block)
	fmt.Println(tpackettest.Free(block))
	// Output:
	// 1 true
	// false
}

// TestFillStops checks that a full block takes no more, and keeps its end.
func TestFillStops(t *testing.T) {
	block := tpackettest.Aligned(4096)
	p := tpackettest.Packet{Data: make([]byte, 1500)}
	if n := (tpackettest.Ring{}).Fill(block, 1, p, p, p); n != 2 {
		t.Errorf("Fill took %d packets of 1500 bytes into 4096, want 2", n)
	}
}
