package tap

import (
	"fmt"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tproxyd/tproxyd/internal/tpacket/tpackettest"
	"github.com/tproxyd/tproxyd/ringcap"
)

// workload is a block of small packets of some flows, in runs of eight, and a
// registry that knows them.
func workload(tb testing.TB, flows, payload int) (*registry, *batch, *encoder, int) {
	tb.Helper()
	r := newRegistry(func(*Event) {})
	var packets []tpackettest.Packet
	for i := range flows {
		from := netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 18, 16, byte(i)}), 40000)
		r.tell(told{flow: &Flow{ID: uint64(i + 1), Service: "web", Backend: "b", Protocol: unix.IPPROTO_TCP, Client: from, Destination: addr(serviceAt)}})
		for range 8 {
			packets = append(packets, tpackettest.Packet{Data: data(unix.IPPROTO_TCP, from.String(), serviceAt, flagACK, payload), Nanos: 1})
		}
	}
	r.update()
	mem := tpackettest.Aligned(1 << 20)
	n := tpackettest.Ring{Reserve: 4, VNet: true}.Fill(mem, 1, packets...)
	tpackettest.Close(mem)
	b := new(ringcap.Block)
	if ready, err := b.Load(mem, true); !ready || err != nil {
		tb.Fatal(ready, err)
	}
	d := &directory{}
	sel, err := newSelector(Selection{Services: []string{"web"}})
	if err != nil {
		tb.Fatal(err)
	}
	e := new(encoder)
	e.init(sel, false, d)
	from := &source{number: d.number("eth0")}
	return r, newBatch(b, from), e, n
}

// again makes a batch one that has not been looked up.
func (b *batch) again() { b.legs, b.known = b.legs[:0], 0 }

func TestPathAllocates(t *testing.T) {
	r, b, e, n := workload(t, 64, 6)
	if allocs := testing.AllocsPerRun(20, func() {
		b.again()
		if got := b.classify(r, 0, false); got != n || b.known != n {
			t.Fatalf("%d of %d packets looked up, %d known", got, n, b.known)
		}
		if _, got := e.encode(b); got != n {
			t.Fatalf("%d of %d packets encoded", got, n)
		}
	}); allocs != 0 {
		t.Errorf("%v allocations for a block", allocs)
	}
}

// BenchmarkPath is the whole work of a packet from the ring to the run that is
// written: its flow is found, counted, selected, and encoded.
func BenchmarkPath(b *testing.B) {
	for _, payload := range []int{6, 1460} {
		b.Run(fmt.Sprint(54+payload), func(b *testing.B) {
			flows := 64
			r, x, e, n := workload(b, flows, payload)
			b.ReportAllocs()
			for _, part := range []string{"classify", "encode"} {
				b.Run(part, func(b *testing.B) {
					x.again()
					x.classify(r, 0, true)
					for i := 0; i < b.N; i += n {
						if part == "encode" {
							e.encode(x)
							continue
						}
						x.again()
						x.classify(r, 0, true)
					}
				})
			}
		})
	}
}
