package proxy

import (
	"testing"
	"time"
)

// TestUDPKeepalives has a tunnel that is quiet but for one small datagram every
// 25 seconds, in one direction, as WireGuard's PersistentKeepalive makes it.
// The flow lives as long as they come, and for an idle timeout after that.
func TestUDPKeepalives(t *testing.T) {
	const every, hours = 25 * time.Second, 3
	keepalive := make([]byte, 32)
	eachUDPWay(t, func(t *testing.T, w udpWay) {
		for side, direction := range directionNames {
			t.Run(direction, func(t *testing.T) {
				b := newBed(t, w.service) // its idle timeout is a minute
				ends := b.converse(w)
				for range hours * time.Hour / every {
					b.later(every)
					b.pass(ends, side, 0, keepalive)
				}
				if n := b.udpCounts(w.service.Name); n.flows != 1 || n.active != 1 || n.dropped != 0 {
					t.Fatalf("counters %+v", n)
				}
				b.later(w.service.IdleTimeout)
				b.wantEnds(w.service.Name, IdleTimeout, 1)
				b.wantNoFlows(w.service.Name)
				if e := ends[client].try(0, keepalive); e != 0 {
					t.Fatal(e)
				}
				ends[upstream].expect(t, 0, keepalive)
				if n := b.udpCounts(w.service.Name); n.flows != 2 {
					t.Errorf("%d flows, want a second one", n.flows)
				}
			})
		}
	})
}

// later lets d go by for all workers.
func (b *bed) later(d time.Duration) {
	b.proxy.each(func(w *worker) { w.loop.Advance(d) })
}
