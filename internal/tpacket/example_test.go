package tpacket_test

import (
	"fmt"

	"github.com/tproxyd/tproxyd/internal/tpacket"
	"github.com/tproxyd/tproxyd/internal/tpacket/tpackettest"
)

// A reader goes around the ring: a block that is ready is walked and released.
func Example() {
	ring := [][]byte{
		tpackettest.Ring{}.Block(4096, tpackettest.Packet{Data: make([]byte, 60)}, tpackettest.Packet{Data: make([]byte, 1514)}),
		tpackettest.Aligned(4096), // the kernel is still filling this one
	}
	var block tpacket.Block
	for i := 0; ; i++ {
		ready, err := block.Load(ring[i%len(ring)], false)
		if !ready {
			break
		}
		for frame := range block.Frames() {
			fmt.Println(len(frame.Data()), "bytes")
		}
		fmt.Println(err, block.Err())
		block.Release()
	}
	// Output:
	// 60 bytes
	// 1514 bytes
	// <nil> <nil>
}
