package load

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// compareEvery is how many reads of a stream go by for one that is compared.
const compareEvery = 32

// stream is one direction of a bulk flow: how far it got.
type stream struct {
	off   uint64
	calls uint64
}

// again tells whether a socket call has to be repeated after the next event.
func again(err error) bool {
	return errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR)
}

// send writes one chunk of the pattern, as much as the socket takes.
func (s *stream) send(fd int, p pattern) error {
	n, err := unix.Write(fd, p.at(s.off))
	if err != nil {
		if again(err) {
			return nil
		}
		return os.NewSyscallError("write", err)
	}
	s.off += uint64(n)
	return nil
}

// receive takes up to one chunk from the socket and returns its length, 0 if
// there was nothing, and -1 at the end of the stream.
func (s *stream) receive(fd int, p pattern, scratch []byte) (int, error) {
	compare := s.calls%compareEvery == 0
	flags := unix.MSG_DONTWAIT
	if !compare {
		flags |= unix.MSG_TRUNC
	}
	s.calls++
	n, _, err := unix.Recvfrom(fd, scratch[:chunkSize], flags)
	switch {
	case err != nil && again(err):
		return 0, nil
	case err != nil:
		return 0, os.NewSyscallError("recv", err)
	case n == 0:
		return -1, nil
	}
	if compare && !p.matches(s.off, scratch[:n]) {
		return 0, fmt.Errorf("stream content differs in the %d bytes after offset %d", n, s.off)
	}
	s.off += uint64(n)
	return n, nil
}
