package clienthello

// cursor reads the presentation language of TLS (RFC 8446, 3). It is what is
// left to read.
type cursor []byte

// take reads n bytes.
func (c *cursor) take(n int) (cursor, bool) {
	if len(*c) < n {
		return nil, false
	}
	got := (*c)[:n:n]
	*c = (*c)[n:]
	return got, true
}

// number reads a number of n bytes.
func (c *cursor) number(n int) (int, bool) {
	digits, ok := c.take(n)
	value := 0
	for _, d := range digits {
		value = value<<8 | int(d)
	}
	return value, ok
}

// vector reads a vector whose length is a number of n bytes.
func (c *cursor) vector(n int) (cursor, bool) {
	length, ok := c.number(n)
	if !ok {
		return nil, false
	}
	return c.take(length)
}
