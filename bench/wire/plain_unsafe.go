package wire

import (
	"errors"
	"fmt"
	"net"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/tproxyd/tproxyd/internal/sys"
)

// Plain sends one frame again and again by a packet socket, as simply as
// that can be done.
type Plain struct {
	fd       int
	frame    []byte
	iovec    unix.Iovec
	messages []sys.Message
}

// OpenPlain makes a Plain that sends up to batch frames at once.
func OpenPlain(device string, frame []byte, batch int) (*Plain, error) {
	link, err := net.InterfaceByName(device)
	if err != nil {
		return nil, err
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Ifindex: link.Index}); err != nil {
		return nil, errors.Join(fmt.Errorf("bind to %s: %w", device, err), unix.Close(fd))
	}
	p := &Plain{fd: fd, frame: frame, iovec: sys.Iovec(frame), messages: make([]sys.Message, batch)}
	for i := range p.messages {
		p.messages[i].Hdr.Iov = &p.iovec
		p.messages[i].Hdr.SetIovlen(1)
	}
	return p, nil
}

// SendTo sends n frames by as many calls. The calls do not wait, so they do not
// tell the Go scheduler, which would cost them more than a C program.
func (p *Plain) SendTo(n int) (int, error) {
	for i := range n {
		_, _, e := unix.RawSyscall6(unix.SYS_SENDTO, uintptr(p.fd), uintptr(unsafe.Pointer(unsafe.SliceData(p.frame))), uintptr(len(p.frame)), unix.MSG_DONTWAIT, 0, 0)
		if e != 0 && e != unix.EAGAIN {
			return i, os.NewSyscallError("sendto", e)
		}
	}
	return n, nil
}

// SendMMsg sends up to n frames by one call, and returns how many.
func (p *Plain) SendMMsg(n int) (int, error) {
	sent, e := sys.SendMessages(p.fd, p.messages[:n])
	if e != 0 {
		if e == unix.EAGAIN {
			return 0, nil
		}
		return 0, os.NewSyscallError("sendmmsg", e)
	}
	return sent, nil
}

// Close closes the socket.
func (p *Plain) Close() error { return os.NewSyscallError("close", unix.Close(p.fd)) }
