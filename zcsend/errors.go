package zcsend

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/tproxyd/tproxyd/internal/sys"
)

// Why a frame was refused. A refusal of the kernel's has its errno as well.
var (
	// ErrTooLong is a frame, or a segment of one, that is longer than the
	// interface's MTU and Ethernet header.
	ErrTooLong = errors.New("frame is too long")
	// ErrFormat is a frame that is not what it has to be: shorter than an
	// Ethernet header, or without the headers that the method needs.
	ErrFormat = errors.New("frame has the wrong format")
	// ErrLinkDown is every frame while the interface is down or gone. Sending
	// works again when it is back.
	ErrLinkDown = errors.New("link is down")
	// ErrNoRoom is a frame that would have had to wait, with
	// Config.DropWhenFull.
	ErrNoRoom = errors.New("no room to send")
)

// refusal is the error of what the kernel answered to a call.
func refusal(call string, e sys.Errno) error {
	err := os.NewSyscallError(call, e)
	switch e {
	case unix.EMSGSIZE:
		return fmt.Errorf("%w: %w", ErrTooLong, err)
	case unix.EINVAL:
		return fmt.Errorf("%w: %w", ErrFormat, err)
	case unix.ENETDOWN, unix.ENXIO, unix.ENODEV:
		return fmt.Errorf("%w: %w", ErrLinkDown, err)
	case unix.EAGAIN, unix.ENOBUFS:
		return fmt.Errorf("%w: %w", ErrNoRoom, err)
	}
	return err
}

// full says whether e means that there is no room at the moment: of the
// socket's buffer (EAGAIN) or of the queue behind it (ENOBUFS).
func full(e sys.Errno) bool { return e == unix.EAGAIN || e == unix.ENOBUFS || e == unix.EINTR }

// linkDown says whether e concerns the interface and not the frame.
func linkDown(e sys.Errno) bool { return e == unix.ENETDOWN || e == unix.ENXIO || e == unix.ENODEV }
