package sys_test

import (
	"fmt"
	"net/netip"

	"github.com/tproxyd/tproxyd/internal/sys"
)

// An address that no interface has can be listened on.
func ExampleListenTCP() {
	fd, err := sys.ListenTCP(netip.MustParseAddrPort("203.0.113.10:80"), 16, true)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer sys.Close(fd)
	var a sys.SockAddr
	if e := sys.LocalName(fd, &a); e != 0 {
		fmt.Println(e)
		return
	}
	fmt.Println(a.AddrPort())
	// Output: 203.0.113.10:80
}
