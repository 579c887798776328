package load

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestTally(t *testing.T) {
	type event struct {
		flow uint32
		seq  uint64
	}
	for _, tt := range []struct {
		name string
		in   []event
		want DatagramReport
	}{
		{"none", nil, DatagramReport{}},
		{"in order", []event{{0, 0}, {0, 1}, {3, 0}}, DatagramReport{Received: 3, Flows: 2, FirstReceivedNS: 1, LastReceivedNS: 3}},
		{"gap", []event{{0, 5}, {0, 300}}, DatagramReport{Received: 2, Flows: 1, FirstReceivedNS: 1, LastReceivedNS: 2}},
		{
			"late ones fill the gap",
			[]event{{0, 0}, {0, 3}, {0, 1}, {0, 2}, {0, 4}},
			DatagramReport{Received: 5, Reordered: 2, Flows: 1, FirstReceivedNS: 1, LastReceivedNS: 5},
		},
		{
			"twice",
			[]event{{1, 0}, {1, 1}, {1, 0}, {1, 1}, {1, 1}},
			DatagramReport{Received: 2, Duplicates: 3, Flows: 1, FirstReceivedNS: 1, LastReceivedNS: 2},
		},
		{
			"the same number of two flows",
			[]event{{1, 64}, {2, 64}, {2, 64}},
			DatagramReport{Received: 2, Duplicates: 1, Flows: 2, FirstReceivedNS: 1, LastReceivedNS: 2},
		},
	} {
		var c tally
		for i, e := range tt.in {
			c.add(e.flow, e.seq, int64(i+1))
		}
		var got DatagramReport
		c.report(&got)
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
	}
}

func TestPacer(t *testing.T) {
	p := pacer{rate: 10_000}
	total := 0
	for now := int64(0); now <= 1e9; now += 5e5 {
		n := p.due(now, 4)
		if n%4 != 0 || n > 8 {
			t.Fatalf("at %d ns: %d are due, want 0, 4 or 8", now, n)
		}
		total += n
	}
	if total < 9_996 || total > 10_000 {
		t.Errorf("%d in a second, want 10000", total)
	}
	// Held up for a second: what was missed is not sent in one go.
	if n := p.due(2e9, 4); n > 52 {
		t.Errorf("%d are due after a hold-up, want no more than those of 5 ms", n)
	}
	if n := p.due(2e9, 4); n != 0 {
		t.Errorf("%d more are due at the same time", n)
	}
	if n := p.due(2e9+1e6, 1); n < 9 || n > 13 {
		t.Errorf("%d are due a millisecond later, want 10", n)
	}
	// A slow sender of large bursts waits until one is due.
	p = pacer{rate: 100}
	if n := p.due(3e8, 54); n != 0 {
		t.Errorf("%d are due, want none before there are 54", n)
	}
	if n := p.due(541e6, 54); n != 54 {
		t.Errorf("%d are due, want 54", n)
	}
}
