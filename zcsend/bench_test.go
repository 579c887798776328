package zcsend

import (
	"fmt"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/tproxyd/tproxyd/internal/netnstest"
)

// BenchmarkSend sends batches of 64 through a veth whose peer drops them, and
// into an ifb, which drops them at once. One operation is one frame, and with
// super-frames one segment.
func BenchmarkSend(b *testing.B) {
	for _, device := range []string{"zc0", "ifb-zc"} {
		b.Run(map[string]string{"zc0": "veth", "ifb-zc": "ifb"}[device], func(b *testing.B) {
			netnstest.New(b)
			if device == "zc0" {
				addPair(b)
				defer removePair(b)
			} else {
				defer addIFB(b, device)()
			}
			for _, size := range []int{64, 1514} {
				for name, cfg := range map[string]Config{
					"ring": {Method: Ring}, "ring-bypass": {Method: Ring, Bypass: true},
					"mmsg": {Method: MMsg}, "mmsg-bypass": {Method: MMsg, Bypass: true},
					"sendto": {Method: MMsg, Batch: 1},
					"gso":    {Method: GSO}, "splice-udp": {Method: SpliceUDP}, "splice-raw": {Method: SpliceRaw},
				} {
					if device != "zc0" && cfg.Method.routed() {
						continue // nothing routes there
					}
					b.Run(fmt.Sprintf("%d/%s", size, name), func(b *testing.B) {
						cfg.Interface = device
						benchmark(b, cfg, Frame{Data: build(false, unix.IPPROTO_UDP, size-42, 1)}, 1)
					})
				}
			}
			const segments = 44
			super := Frame{Data: build(false, unix.IPPROTO_UDP, segments*1472, 1), SegmentSize: 1472}
			b.Run("super/gso", func(b *testing.B) {
				benchmark(b, Config{Interface: device, Method: GSO}, super, segments)
			})
			b.Run("super/ring", func(b *testing.B) {
				benchmark(b, Config{Interface: device, Method: Ring, SuperFrames: true}, super, segments)
			})
		})
	}
}

// benchmark sends frames that carry so many segments each.
func benchmark(b *testing.B, cfg Config, frame Frame, segments int) {
	s := mustOpen(b, cfg)
	frames := make([]Frame, 64)
	for i := range frames {
		frames[i] = frame
		frames[i].Data = append([]byte(nil), frame.Data...)
	}
	ctx := b.Context()
	b.ReportAllocs()
	b.SetBytes(int64(len(frame.Data) / segments))
	b.ResetTimer()
	for left := (b.N + segments - 1) / segments; left > 0; {
		n := min(left, len(frames))
		if sent, err := s.Send(ctx, frames[:n]); sent != n {
			b.Fatal(err)
		}
		left -= n
	}
}

func addIFB(b *testing.B, name string) (remove func()) {
	b.Helper()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = name
	link := &netlink.Ifb{LinkAttrs: attrs}
	if err := netlink.LinkAdd(link); err != nil {
		b.Fatal(err)
	}
	if err := netlink.LinkSetUp(link); err != nil {
		b.Fatal(err)
	}
	return func() {
		if err := netlink.LinkDel(link); err != nil {
			b.Error(err)
		}
	}
}
