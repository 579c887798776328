package announce_test

import (
	"fmt"
	"net"
	"net/netip"

	"github.com/tproxyd/tproxyd/internal/announce"
)

// All hosts of the link hear where 203.0.113.10 is.
func ExampleFrame() {
	mac := net.HardwareAddr{2, 0, 0, 0, 0, 1}
	f := announce.Frame(mac, netip.MustParseAddr("203.0.113.10"), false)
	fmt.Printf("%x\n%x\n", f[:14], f[14:42])
	// Output:
	// ffffffffffff0200000000010806
	// 0001080006040001020000000001cb00710a000000000000cb00710a
}
