package tap_test

import (
	"fmt"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"

	"github.com/tproxyd/tproxyd/ringcap/tap"
)

// A proxy tells of its flows; what is captured of them is in files that
// Wireshark shows with frame.packet_id == 42.
func Example() {
	dir, err := os.MkdirTemp("", "tap")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = os.RemoveAll(dir) }()
	m := tap.New(tap.Options{Application: "example"})
	defer func() { _ = m.Close() }()
	err = m.Apply(tap.Config{
		Interfaces: []string{"lo"},
		Ring:       tap.Ring{BlockSize: 64 << 10, Blocks: 8},
		Captures:   []tap.Capture{{Name: "web", Directory: dir, Selection: tap.Selection{Services: []string{"web"}, Snap: tap.SnapHeaders}}},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	m.Open(&tap.Flow{
		ID: 42, Service: "web", Protocol: unix.IPPROTO_TCP,
		Client: netip.MustParseAddrPort("198.18.1.2:40000"), Destination: netip.MustParseAddrPort("203.0.113.10:80"),
	})
	m.End(42, 0, 0, "refused")
	for _, c := range m.List() {
		fmt.Println(c.Capture.Name, c.Running, c.Packets)
	}
	// Output:
	// web true 0
}
