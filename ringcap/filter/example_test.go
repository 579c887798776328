package filter_test

import (
	"fmt"

	"golang.org/x/net/bpf"

	"github.com/tproxyd/tproxyd/ringcap/filter"
)

func Example() {
	raw, err := filter.Compile("ip6", filter.Options{Snap: 128})
	if err != nil {
		fmt.Println(err)
		return
	}
	program, _ := bpf.Disassemble(raw)
	for _, ins := range program {
		fmt.Println(ins)
	}
	_, err = filter.Compile("tcp and port http2", filter.Options{})
	fmt.Println(err)
	// Output:
	// ldh [12]
	// jneq #34525,1
	// ret #128
	// ret #0
	// parse filter: at byte 14: "http2" is not a port
}
