package load_test

import (
	"fmt"

	"github.com/tproxyd/tproxyd/bench/load"
)

func ExampleHistogram() {
	var h load.Histogram
	for ns := range int64(31) {
		h.Record(ns)
	}
	fmt.Println(h.Count(), h.Quantile(0.5), h.Quantile(0.99))
	// Output: 31 15 30
}
