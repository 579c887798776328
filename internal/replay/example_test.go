package replay_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"

	"github.com/tproxyd/tproxyd/internal/replay"
)

type printer struct{}

func (printer) Send(_ context.Context, frames [][]byte) (int, error) {
	for _, f := range frames {
		fmt.Printf("%x\n", f)
	}
	return len(frames), nil
}

// A capture is sent with other Ethernet addresses.
func Example() {
	var capture bytes.Buffer
	w := pcapgo.NewWriter(&capture)
	_ = w.WriteFileHeader(65535, layers.LinkTypeEthernet)
	frame := []byte{2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0x88, 0xb5}
	_ = w.WritePacket(gopacket.CaptureInfo{Timestamp: time.Unix(1, 0), CaptureLength: 14, Length: 14}, frame)

	cfg := replay.Config{
		Open:   func() (io.ReadCloser, error) { return io.NopCloser(&capture), nil },
		Sender: printer{},
	}
	if err := cfg.Rewrite.AddMAC("02:00:00:00:00:02=02:00:00:00:00:03"); err != nil {
		fmt.Println(err)
		return
	}
	summary, err := replay.Run(context.Background(), cfg)
	fmt.Println(summary.Sent, err)
	// Output:
	// 02000000000302000000000188b5
	// 1 <nil>
}
