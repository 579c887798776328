package load

import (
	"bytes"
	"encoding/binary"
	"strings"
)

// Sizes on the wire of one exchange.
const (
	RequestSize  = 100
	ResponseSize = 200
)

const (
	requestHead  = "GET /"
	responseHead = "HTTP/1.1 200 OK\r\nX-Id: "
	kindOffset   = len(requestHead)
	idOffset     = kindOffset + 2
	idSize       = 16
	echoOffset   = len(responseHead)

	kindKeep  = 'k'
	kindClose = 'c'
)

// request builds a request that has the shape of HTTP/1.1; only its kind and
// its id are looked at.
func newRequest(kind byte) []byte {
	head := requestHead + string(kind) + "/" + strings.Repeat("0", idSize) + " HTTP/1.1\r\nHost: bench\r\nX-Pad: "
	const tail = "\r\n\r\n"
	return []byte(head + strings.Repeat("x", RequestSize-len(head)-len(tail)) + tail)
}

func newResponse() []byte {
	// The length is that of what follows; it has three digits, as has 136.
	head := responseHead + strings.Repeat("0", idSize) + "\r\nContent-Length: 136\r\n\r\n"
	return []byte(head + strings.Repeat("y", ResponseSize-len(head)))
}

// putID writes id as 16 hexadecimal digits to the start of b.
func putID(b []byte, id uint64) {
	const digits = "0123456789abcdef"
	for i := idSize - 1; i >= 0; i-- {
		b[i] = digits[id&15]
		id >>= 4
	}
}

// Streams. The pattern has a period that no socket buffer or pipe is a multiple
// of, so that bytes lost, doubled or swapped show.
const (
	patternPeriod = 1<<20 - 3
	chunkSize     = 256 << 10
	trailerSize   = 8
)

// pattern is one period and a chunk, so that a chunk from any offset is one slice.
type pattern []byte

func newPattern() pattern {
	p := make(pattern, patternPeriod+chunkSize)
	x := uint32(2463534242) // xorshift32
	for i := range patternPeriod {
		x ^= x << 13
		x ^= x >> 17
		x ^= x << 5
		p[i] = byte(x >> 24)
	}
	copy(p[patternPeriod:], p[:chunkSize])
	return p
}

// at returns the chunk of the stream that begins at offset off.
func (p pattern) at(off uint64) []byte {
	i := off % patternPeriod
	return p[i : i+chunkSize]
}

// matches tells whether b, at most a chunk, is the stream's content at offset off.
func (p pattern) matches(off uint64, b []byte) bool {
	return bytes.Equal(b, p.at(off)[:len(b)])
}

// tail keeps the last bytes of a stream.
type tail [trailerSize]byte

func (t *tail) add(b []byte) {
	if len(b) >= trailerSize {
		copy(t[:], b[len(b)-trailerSize:])
		return
	}
	copy(t[:], t[len(b):])
	copy(t[trailerSize-len(b):], b)
}

func (t *tail) count() uint64 { return binary.BigEndian.Uint64(t[:]) }

func newTail(count uint64) tail {
	var t tail
	binary.BigEndian.PutUint64(t[:], count)
	return t
}
