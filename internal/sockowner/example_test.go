package sockowner_test

import (
	"fmt"
	"log"
	"net"
	"net/netip"

	"github.com/tproxyd/tproxyd/internal/sockowner"
)

func Example() {
	ln, err := net.Listen("tcp4", "127.0.0.1:5300")
	if err != nil {
		log.Fatal(err)
	}
	defer ln.Close()
	owners, err := sockowner.Find("tcp", netip.MustParseAddrPort("0.0.0.0:5300"))
	if err != nil {
		log.Fatal(err)
	}
	for _, o := range owners {
		fmt.Println(o.Local, o.Own())
	}
	// Output: 127.0.0.1:5300 true
}
