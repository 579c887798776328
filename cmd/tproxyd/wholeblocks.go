package main

import (
	"encoding/binary"
	"io"
)

// wholeBlocks passes pcapng on in whole blocks, so that a stream that is ended at
// any time can be read to its end. It is for the streams of the daemon, which are in
// little-endian; what is none is passed on as it comes.
type wholeBlocks struct {
	w    io.Writer
	rest []byte
	off  bool // it is no pcapng
}

const (
	blockHead = 8       // type and length
	maxBlock  = 1 << 25 // far more than a packet
)

// Write implements io.Writer.
func (b *wholeBlocks) Write(p []byte) (int, error) {
	b.rest = append(b.rest, p...)
	n := 0
	for !b.off && len(b.rest)-n >= blockHead {
		size := int(binary.LittleEndian.Uint32(b.rest[n+4:]))
		if size < blockHead+4 || size > maxBlock {
			b.off = true
			break
		}
		if len(b.rest)-n < size {
			break
		}
		n += size
	}
	if b.off {
		n = len(b.rest)
	}
	if n == 0 {
		return len(p), nil
	}
	_, err := b.w.Write(b.rest[:n])
	b.rest = append(b.rest[:0], b.rest[n:]...)
	return len(p), err
}
