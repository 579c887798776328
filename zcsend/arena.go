package zcsend

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

const (
	arenaBytes = 1 << 20
	arenaAlign = 64
)

// arena is memory that is written once and then only read, by whoever got a
// reference of its pages from vmsplice. At its end it starts anew with other
// pages: MADV_DONTNEED takes the old ones out of our address space, and they
// live as long as somebody sends them.
//
// Splice gives no word of completion. That nobody reads a page any more cannot
// be found out, so no byte that was handed over is ever written again.
type arena struct {
	memory []byte
	used   int
	at     int // where take found room last
	page   int
}

func newArena() (arena, error) {
	memory, err := unix.Mmap(-1, 0, arenaBytes, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return arena{}, os.NewSyscallError("mmap", err)
	}
	// One packet in flight would hold two mebibytes of a huge page. A kernel
	// without them does not know the advice.
	_ = unix.Madvise(memory, unix.MADV_NOHUGEPAGE)
	return arena{memory: memory, page: os.Getpagesize()}, nil
}

// take finds n bytes, as one piece of as few pages as it can be in. Kernels
// before 6.5 send a datagram of a raw socket in one piece only if it is in one
// page. It is nil if the arena has no more. Without keep, the next take gives
// the same.
func (a *arena) take(n int) []byte {
	at := (a.used + arenaAlign - 1) &^ (arenaAlign - 1)
	if n > 0 && at/a.page != (at+n-1)/a.page {
		at = (at + a.page - 1) / a.page * a.page
	}
	if at+n > len(a.memory) {
		return nil
	}
	a.at = at
	return a.memory[at : at+n : at+n]
}

// keep makes the first n bytes of what was taken last unavailable.
func (a *arena) keep(n int) { a.used = a.at + n }

// renew replaces all pages.
func (a *arena) renew() {
	err := unix.Madvise(a.memory, unix.MADV_DONTNEED)
	if errors.Is(err, unix.EINVAL) { // the process locks its memory
		err = unix.Madvise(a.memory, unix.MADV_DONTNEED_LOCKED)
	}
	if err != nil {
		// The mapping is ours, private and anonymous: madvise(2) has no other
		// reason. Going on would rewrite pages.
		panic(os.NewSyscallError("madvise(MADV_DONTNEED)", err))
	}
	a.used = 0
}

func (a *arena) close() error {
	return os.NewSyscallError("munmap", unix.Munmap(a.memory))
}
