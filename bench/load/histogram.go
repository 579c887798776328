package load

import "math/bits"

const (
	histogramSubBits = 5 // 32 steps per power of two: within 3.2 %
	histogramSub     = 1 << histogramSubBits
	histogramSize    = (64 - histogramSubBits + 1) * histogramSub
)

// Histogram counts durations in nanoseconds in buckets whose width is at most
// 1/32 of their lower bound. The zero value is empty and ready to use.
type Histogram struct {
	total  uint64
	counts [histogramSize]uint64
}

// Record adds one value; a negative one counts as 0.
func (h *Histogram) Record(ns int64) {
	h.total++
	h.counts[bucketOf(uint64(max(ns, 0)))]++
}

// Count is the number of values recorded.
func (h *Histogram) Count() uint64 { return h.total }

// Reset empties the histogram.
func (h *Histogram) Reset() { *h = Histogram{} }

// Quantile returns the middle of the bucket that holds the value of rank
// ceil(q*count), and 0 for an empty histogram. q is between 0 and 1.
func (h *Histogram) Quantile(q float64) int64 {
	if h.total == 0 {
		return 0
	}
	rank := uint64(q * float64(h.total))
	if float64(rank) < q*float64(h.total) || rank == 0 {
		rank++
	}
	var seen uint64
	for i, n := range h.counts {
		seen += n
		if seen >= rank {
			low, width := bucketBounds(i)
			return int64(low + width/2)
		}
	}
	return 0
}

// bucketOf: values below histogramSub have a bucket each; above, the exponent
// chooses the row and the bits behind the leading one the step.
func bucketOf(v uint64) int {
	if v < histogramSub {
		return int(v)
	}
	exp := bits.Len64(v) - 1 - histogramSubBits
	return exp*histogramSub + int(v>>exp)
}

func bucketBounds(i int) (low, width uint64) {
	if i < histogramSub {
		return uint64(i), 1
	}
	exp := i/histogramSub - 1
	return uint64(i-exp*histogramSub) << exp, 1 << exp
}
