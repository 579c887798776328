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

// What is joined leaves in one message, and comes out as it went in.
func ExampleSender_Extend() {
	s := sys.NewSender(8)
	for _, d := range []string{"one", "two", "six", "to", "three"} {
		if s.Len() == 0 || !s.Extend(0, []byte(d)) {
			s.Add(nil, 0, []byte(d))
		}
	}
	for i := range s.Len() {
		fmt.Println(s.Count(i), "datagrams of at most", s.Segment(i))
		for d := range s.Datagrams(i) {
			fmt.Printf(" %s", d)
		}
		fmt.Println()
	}
	// Output:
	// 4 datagrams of at most 3
	//  one two six to
	// 1 datagrams of at most 0
	//  three
}
