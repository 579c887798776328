package proxy_test

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"time"

	"github.com/tproxyd/tproxyd/proxy"
)

// A service on a virtual address that no interface has is a matter of its
// Listen and Source; this one is on loopback, where an example can run.
func Example() {
	backend, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		fmt.Println(err)
		return
	}
	go func() {
		if c, err := backend.Accept(); err == nil {
			_, _ = io.WriteString(c, "hello")
			_ = c.Close()
		}
	}()

	p, err := proxy.New(proxy.Options{Workers: 1})
	if err != nil {
		fmt.Println(err)
		return
	}
	vip := netip.MustParseAddrPort("127.0.0.2:8080")
	err = p.Apply(proxy.Config{Services: []proxy.Service{{
		Name: "web", Mode: proxy.VIP, Source: proxy.Host, ConnectTimeout: time.Second,
		Listen:   []netip.AddrPort{vip},
		Backends: []proxy.Backend{{Name: "a", Addr: netip.MustParseAddrPort(backend.Addr().String()), Weight: 1}},
	}}})
	if err != nil {
		fmt.Println(err)
		return
	}

	c, err := net.Dial("tcp4", vip.String())
	if err != nil {
		fmt.Println(err)
		return
	}
	answer, err := io.ReadAll(c)
	fmt.Println(string(answer), err)
	_ = c.Close()

	for p.Active() > 0 {
		time.Sleep(time.Millisecond)
	}
	fmt.Println(p.Services()[0].BytesOut, "bytes,", p.Close())
	_ = backend.Close()
	// Output:
	// hello <nil>
	// 5 bytes, <nil>
}
