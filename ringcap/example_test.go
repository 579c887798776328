package ringcap_test

import (
	"context"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/tproxyd/tproxyd/ringcap"
)

// Capture on the loopback interface until the context ends.
func Example() {
	ring, err := ringcap.Open(ringcap.Config{Interface: "lo", BlockSize: 64 << 10, Blocks: 4, Direction: ringcap.In})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = ring.Close() }()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = unix.Close(fd) }()
	_ = unix.Sendto(fd, []byte("hello"), 0, &unix.SockaddrInet4{Port: 9, Addr: [4]byte{127, 0, 0, 1}})

	ctx, cancel := context.WithCancel(context.Background())
	cancel() // what has been captured by now still comes
	for block, err := range ring.Blocks(ctx) {
		if err != nil {
			fmt.Println(err)
			return
		}
		for p := range block.Packets() {
			if string(p.Data()[42:47]) == "hello" {
				fmt.Println(len(p.Data()), "bytes")
			}
		}
	}
	// Output: 47 bytes
}
