package tpackettest

import (
	"sync/atomic"
	"unsafe"
)

// Status is the ownership word of a block.
func Status(block []byte) *atomic.Uint32 {
	return (*atomic.Uint32)(unsafe.Pointer(&block[8:12][0]))
}

// Aligned allocates n bytes at an address that is a multiple of eight, as the
// pages of a ring are.
func Aligned(n int) []byte {
	words := make([]uint64, (n+7)/8)
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(words))), n)
}
