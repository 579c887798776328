package balance

import (
	"math"
	"slices"
)

// maxSequence bounds a sequence: half a megabyte. Only more than a thousand
// members of large weights that differ would be longer; their weights are
// rounded then.
const maxSequence = 1 << 18

// sequence returns the order in which candidates take their turns: each as often
// as its weight says, evenly spaced. Over any stretch of it a candidate has its
// share of the turns to within two or so, as with nginx's smooth weighted
// round-robin, but there is nothing left to compute when one is chosen.
//
// Turn k of candidate i, of n, stands at (k + (i+1/2)/n) / weight of a cycle:
// candidates of the same weight are so in the order of the members, and those of
// different weights do not all begin together.
func sequence(candidates []candidate) []uint16 {
	weights := shares(candidates)
	n := uint64(len(candidates))
	var turns []uint64 // the place in the cycle, above 16 bits of index
	for i, w := range weights {
		for k := range w {
			place := (2*n*k + 2*uint64(i) + 1) << 24 / w
			turns = append(turns, place<<16|uint64(i))
		}
	}
	slices.Sort(turns)
	order := make([]uint16, len(turns))
	for i, t := range turns {
		order[i] = uint16(t)
	}
	return order
}

// shares are the weights in their lowest terms, rounded if they come to more
// than maxSequence.
func shares(candidates []candidate) []uint64 {
	var sum, divisor uint64
	for _, c := range candidates {
		divisor = gcd(divisor, uint64(c.weight))
		sum += uint64(c.weight)
	}
	weights := make([]uint64, len(candidates))
	for i, c := range candidates {
		weights[i] = uint64(c.weight) / divisor
		if sum/divisor > maxSequence {
			exact := float64(c.weight) * float64(maxSequence-len(candidates)) / float64(sum)
			weights[i] = max(1, uint64(math.Round(exact)))
		}
	}
	return weights
}

func gcd(a, b uint64) uint64 {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}
