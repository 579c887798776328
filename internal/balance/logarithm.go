package balance

import "math/bits"

// logarithms holds log2(1 + i/256) times 2^32. Logarithms are taken in integers:
// math.Log may differ in the last bit from one architecture to the other, and
// so would the choices of two nodes.
type logarithms [257]uint64

func newLogarithms() *logarithms {
	var t logarithms
	for i := range t {
		t[i] = fraction(1<<63 + uint64(i)<<55)
	}
	t[256] = 1 << 32
	return &t
}

// fraction returns log2(x / 2^63) times 2^32, for x from 2^63: squared, a number
// from 1 to 2 is 2 or more just if the next bit of its logarithm is 1.
func fraction(x uint64) uint64 {
	var log uint64
	for range 32 {
		high, low := bits.Mul64(x, x) // of x^2 with 126 binary places
		log <<= 1
		if high>>63 == 1 {
			log |= 1
			x = high
		} else {
			x = high<<1 | low>>63
		}
	}
	return log
}

// negative returns -log2(x / 2^64) times 2^32, off by 0.4 % at most. 0 counts
// as 1.
func (t *logarithms) negative(x uint64) uint64 {
	x = max(x, 1)
	zeros := bits.LeadingZeros64(x)
	x <<= zeros + 1 // what follows the leading one
	i, rest := x>>56, x<<8>>32
	log := t[i] + (t[i+1]-t[i])*rest>>32
	return uint64(zeros+1)<<32 - log
}
