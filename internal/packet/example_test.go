package packet_test

import (
	"encoding/hex"
	"fmt"

	"github.com/tproxyd/tproxyd/internal/packet"
)

// A frame whose address was changed gets its checksums anew.
func Example() {
	frame, _ := hex.DecodeString("0200000000020200000000010800" +
		"450000211234400040110000c6120102c6120202" + "30390035000d0000" + "68656c6c6f")
	l, ok := packet.Parse(frame)
	if !ok {
		return
	}
	_, dst := l.Addresses(frame)
	copy(dst, []byte{203, 0, 113, 10})
	fmt.Println(l.SetChecksums(frame))
	fmt.Printf("%x %x\n", frame[l.L3+10:l.L3+12], frame[l.L4+6:l.L4+8])
	// Output:
	// true
	// 2579 8874
}
