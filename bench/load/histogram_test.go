package load

import (
	"math"
	"testing"
)

// Every value lies in its own bucket, buckets follow each other without a gap,
// and none is wider than 1/32 of its lower bound.
func TestBuckets(t *testing.T) {
	var end uint64
	for i := range histogramSize {
		low, width := bucketBounds(i)
		if low != end {
			t.Fatalf("bucket %d begins at %d, the one before ends at %d", i, low, end)
		}
		if low >= histogramSub && width*histogramSub > low {
			t.Errorf("bucket %d from %d is %d wide, more than 1/32", i, low, width)
		}
		for _, v := range []uint64{low, low + width - 1} {
			if got := bucketOf(v); got != i {
				t.Errorf("bucketOf(%d) = %d, want %d", v, got, i)
			}
		}
		end = low + width
	}
	if end != 0 {
		t.Errorf("the last bucket ends at %d, want 2^64", end)
	}
}

func TestQuantile(t *testing.T) {
	var h Histogram
	if got := h.Quantile(0.5); got != 0 {
		t.Errorf("median of nothing = %d, want 0", got)
	}
	for v := int64(1); v <= 1000; v++ {
		h.Record(v * 1000)
	}
	for _, tt := range []struct {
		q    float64
		want int64
	}{{0, 1000}, {0.5, 500_000}, {0.99, 990_000}, {1, 1_000_000}} {
		got := h.Quantile(tt.q)
		if math.Abs(float64(got-tt.want)) > float64(tt.want)/32 {
			t.Errorf("Quantile(%v) = %d, want %d within 1/32", tt.q, got, tt.want)
		}
	}
	if h.Count() != 1000 {
		t.Errorf("Count = %d, want 1000", h.Count())
	}
	h.Reset()
	h.Record(-5)
	if got := h.Quantile(1); got != 0 || h.Count() != 1 {
		t.Errorf("after Reset and Record(-5): Quantile(1) = %d, Count = %d, want 0 and 1", got, h.Count())
	}
}
