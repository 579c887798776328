package proxyproto_test

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/tproxyd/tproxyd/internal/proxyproto"
)

func Example() {
	stream := proxyproto.AppendV2(nil, &proxyproto.Header{
		Source:      netip.MustParseAddrPort("198.18.1.2:40312"),
		Destination: netip.MustParseAddrPort("203.0.113.10:443"),
		Authority:   []byte("www.example.org"),
	})
	stream = append(stream, "what the client says"...)

	for length := 6; ; length += 30 { // as it might come from a socket
		h, n, err := proxyproto.Parse(stream[:length])
		if errors.Is(err, proxyproto.ErrShort) {
			fmt.Println(length, "bytes:", err)
			continue
		}
		fmt.Printf("%d bytes: %v to %v, %s, then %q\n", length, h.Source, h.Destination, h.Authority, stream[n:length])
		return
	}
	// Output:
	// 6 bytes: incomplete PROXY header
	// 36 bytes: incomplete PROXY header
	// 66 bytes: 198.18.1.2:40312 to 203.0.113.10:443, www.example.org, then "what the client says"
}

func ExampleSignature() {
	var s proxyproto.Signature // of a client that may not send a header
	for _, piece := range []string{"PRO", "X", "Y TCP4 "} {
		fmt.Println(s.Scan([]byte(piece)) == proxyproto.Present)
	}
	// Output:
	// false
	// false
	// true
}
