package mirror_test

import (
	"context"
	"fmt"
	"net/netip"

	"github.com/tproxyd/tproxyd/ringcap"
	"github.com/tproxyd/tproxyd/ringcap/filter"
	"github.com/tproxyd/tproxyd/zcsend/encap"
	"github.com/tproxyd/tproxyd/zcsend/mirror"
)

// Mirror an interface to a collector, without what is sent to it.
func Example() {
	cfg := mirror.Config{Name: "far", Collector: netip.MustParseAddr("127.0.0.1"), Kind: encap.GRE, ID: 7}
	own, err := cfg.Exclusion()
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println("not", own)
	program, err := filter.Compile("not "+own+" and (tcp port 443)", filter.Options{Metadata: true})
	if err != nil {
		fmt.Println(err)
		return
	}
	ring, err := ringcap.Open(ringcap.Config{Interface: "lo", Filter: program, BlockSize: 64 << 10, Blocks: 4})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = ring.Close() }()
	m, err := mirror.New(cfg)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = m.Close() }()
	ctx, cancel := context.WithCancel(context.Background())
	cancel() // in earnest, when it is to end
	if err := m.Run(ctx, ring); err != nil {
		fmt.Println(err)
	}
	fmt.Println(m.Stats().Frames, "frames")
	// Output:
	// not (host 127.0.0.1 and host 127.0.0.1 and (ip proto 47 or ip proto 1))
	// 0 frames
}
