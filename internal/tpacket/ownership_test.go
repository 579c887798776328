package tpacket_test

import (
	"encoding/binary"
	"runtime"
	"sync"
	"testing"

	"github.com/tproxyd/tproxyd/internal/tpacket"
	"github.com/tproxyd/tproxyd/internal/tpacket/tpackettest"
)

// kernel fills a ring as the kernel does: block after block, and when the next
// is still ours it freezes and drops, never skips.
type kernel struct {
	ring    [][]byte
	stop    chan struct{}
	sent    uint64 // packets written to blocks
	dropped uint64
}

func (k *kernel) run() {
	next := uint64(0) // number of the next packet
	for at := 0; ; at = (at + 1) % len(k.ring) {
		block := k.ring[at]
		for !tpackettest.Free(block) {
			select {
			case <-k.stop:
				return
			default:
				next++
				k.dropped++
				runtime.Gosched()
			}
		}
		packets := make([]tpackettest.Packet, 1+next%7)
		for i := range packets {
			data := make([]byte, 8+next%50)
			binary.NativeEndian.PutUint64(data, next)
			packets[i].Data = data
			next++
		}
		n := tpackettest.Ring{}.Fill(block, uint64(at), packets...)
		k.sent += uint64(n)
		tpackettest.Close(block)
	}
}

// TestOwnership is about the status word: under the race detector any access
// to a block by the side that does not own it is an error, and the numbers in
// the packets show what was lost.
func TestOwnership(t *testing.T) {
	k := &kernel{stop: make(chan struct{})}
	for range 4 {
		k.ring = append(k.ring, tpackettest.Aligned(1<<12))
	}
	var wg sync.WaitGroup
	wg.Go(k.run)

	got, last := uint64(0), int64(-1)
	take := func(at int) bool {
		var b tpacket.Block
		ready, err := b.Load(k.ring[at], false)
		if err != nil {
			t.Error(err)
		}
		if !ready {
			return false
		}
		for f := range b.Frames() {
			n := int64(binary.NativeEndian.Uint64(f.Data()))
			if n <= last {
				t.Errorf("packet %d after packet %d", n, last)
			}
			last = n
			got++
			raw, mac := f.Raw()
			clear(raw[:mac]) // what is ours may be written
		}
		b.Release()
		return true
	}
	at := 0
	for blocks := 0; blocks < 2000; {
		if take(at) {
			at = (at + 1) % len(k.ring)
			blocks++
		} else {
			runtime.Gosched()
		}
	}
	close(k.stop)
	// The kernel only looks at stop when it is frozen; what it had written by
	// then is still ours to take.
	wg.Wait()
	for take(at) {
		at = (at + 1) % len(k.ring)
	}
	if got != k.sent {
		t.Errorf("took %d packets, the kernel wrote %d", got, k.sent)
	}
	if last < int64(k.sent) && k.dropped == 0 {
		t.Errorf("last number %d with %d sent", last, k.sent)
	}
}
