package sys

import (
	"os"

	"golang.org/x/sys/unix"
)

// Pipe is a non-blocking kernel pipe used to carry spliced pages.
type Pipe struct {
	R, W int
	Size int // bytes it may hold if every page is full: what the kernel gave, not what was asked
}

// NewPipe opens a pipe and asks for size bytes. A user without
// CAP_SYS_RESOURCE who has spent fs.pipe-user-pages-soft is refused the size,
// and gets a pipe of two pages instead of sixteen (pipe(7)); such a pipe works
// and Size says what it is.
func NewPipe(size int) (Pipe, error) {
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_NONBLOCK|unix.O_CLOEXEC); err != nil {
		return Pipe{}, os.NewSyscallError("pipe2", err)
	}
	p := Pipe{R: fds[0], W: fds[1]}
	got, err := unix.FcntlInt(uintptr(p.W), unix.F_SETPIPE_SZ, size)
	if err != nil {
		got, err = unix.FcntlInt(uintptr(p.W), unix.F_GETPIPE_SZ, 0)
	}
	if err != nil {
		p.Close()
		return Pipe{}, os.NewSyscallError("fcntl(F_GETPIPE_SZ)", err)
	}
	p.Size = got
	return p, nil
}

// Close closes both ends; pages still in the pipe are freed.
func (p Pipe) Close() {
	Close(p.R)
	Close(p.W)
}
