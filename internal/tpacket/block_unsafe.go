package tpacket

import (
	"sync/atomic"
	"unsafe"
)

// loadWord and storeWord access the 32-bit word at offset off of b, which
// starts at an address that is a multiple of four: a page of a ring.

func loadWord(b []byte, off int) uint32 {
	return atomic.LoadUint32((*uint32)(unsafe.Pointer(&b[off : off+4][0])))
}

func storeWord(b []byte, off int, v uint32) {
	atomic.StoreUint32((*uint32)(unsafe.Pointer(&b[off : off+4][0])), v)
}
