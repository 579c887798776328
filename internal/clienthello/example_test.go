package clienthello_test

import (
	"crypto/tls"
	"fmt"

	"github.com/tproxyd/tproxyd/internal/clienthello"
)

func Example() {
	table := clienthello.NewTable([]clienthello.Route{
		{SNI: []string{"*.example.org"}},
		{SNI: []string{"api.example.org"}, ALPN: []string{"h2"}},
	})
	stream := capture(&tls.Config{ServerName: "API.example.org", NextProtos: []string{"h2", "http/1.1"}})

	var s clienthello.Scanner
	for length := 1; ; length = s.Need() { // as it might come from a socket
		h, err := s.Parse(stream[:length], 16<<10)
		if err != nil {
			continue // incomplete; a server looks what it is
		}
		fmt.Printf("%s: route %d\n", h.ServerName(), table.Match(&h))
		for p := range h.Protocols {
			fmt.Printf("offers %s\n", p)
		}
		return
	}
	// Output:
	// api.example.org: route 1
	// offers h2
	// offers http/1.1
}
