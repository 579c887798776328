package zcsend

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/tproxyd/tproxyd/internal/packet"
	"github.com/tproxyd/tproxyd/internal/sys"
)

// pipeBytes is the room of the pipe: sixteen pages, the most that the kernel
// makes one datagram of.
const pipeBytes = 64 << 10

// splice sends by vmsplice(2) into a pipe and splice(2) from there into a
// connected socket: one packet at a time, as a socket makes one datagram of
// all that a call brings. The memory is an arena's.
type splice struct {
	sockets sockets
	arena   arena
	pipe    sys.Pipe
	device  string
	longest int

	queue     []spliced // queue[first:] is queued
	first     int
	lastCall  string
	throwAway []byte
}

// spliced is one queued packet.
type spliced struct {
	frame  []byte
	layout packet.Layout
}

// sockets are those of one protocol, connected to the packets' destinations.
type sockets interface {
	// accepts says whether a frame can be sent so.
	accepts(frame []byte, l *packet.Layout) error
	// connected returns a socket for a packet, and which part of the frame it is
	// to be given.
	connected(frame []byte, l *packet.Layout) (fd int, part []byte, e sys.Errno)
	// forget closes or disconnects the socket that connected returned last.
	forget()
	// any is a socket to ask about the interface.
	any() int
	// reopen opens first sockets, in place of all there are.
	reopen() error
	close()
}

func openSplice(dev *device, cfg *Config, of sockets) (engine, error) {
	if err := of.reopen(); err != nil {
		return nil, err
	}
	s := &splice{
		sockets: of, device: dev.name, longest: dev.longest(true),
		queue: make([]spliced, 0, cfg.Batch), throwAway: make([]byte, pipeBytes),
	}
	var err error
	if s.arena, err = newArena(); err != nil {
		of.close()
		return nil, err
	}
	if s.pipe, err = sys.NewPipe(pipeBytes); err != nil {
		of.close()
		return nil, errors.Join(err, s.arena.close())
	}
	if s.pipe.Size < s.longest {
		// See pipe(7), fs.pipe-user-pages-soft.
		err := fmt.Errorf("pipe holds %d bytes, frames have up to %d: this user has too many pipes", s.pipe.Size, s.longest)
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

func (s *splice) reserve(n int) []byte {
	if s.first == len(s.queue) {
		s.queue, s.first = s.queue[:0], 0
	}
	if len(s.queue) == cap(s.queue) {
		return nil
	}
	b := s.arena.take(max(n, s.longest))
	if b == nil && len(s.queue) == 0 && n <= arenaBytes {
		s.arena.renew()
		b = s.arena.take(max(n, s.longest))
	}
	if b == nil {
		return nil
	}
	return b[:n:n]
}

func (s *splice) commit(data []byte, _ vnetHeader) error {
	l, _ := packet.Parse(data)
	if !l.IP || l.Truncated {
		return fmt.Errorf("%w: not a whole IP packet", ErrFormat)
	}
	// In the queue first: a layout of its own would be allocated.
	s.queue = append(s.queue, spliced{data, l})
	if err := s.sockets.accepts(data, &s.queue[len(s.queue)-1].layout); err != nil {
		s.queue = s.queue[:len(s.queue)-1]
		return err
	}
	s.arena.keep(len(data))
	return nil
}

func (s *splice) flush() (taken, bytes int, e sys.Errno) {
	for s.first < len(s.queue) {
		q := &s.queue[s.first]
		fd, part, e := s.sockets.connected(q.frame, &q.layout)
		if e != 0 {
			s.lastCall = "connect"
			return taken, bytes, s.about(e)
		}
		if e := s.send(fd, part); e != 0 {
			if !full(e) {
				s.sockets.forget()
			}
			return taken, bytes, s.about(e)
		}
		taken++
		bytes += len(q.frame)
		s.first++
	}
	return taken, bytes, 0
}

// send makes one datagram of part.
func (s *splice) send(fd int, part []byte) sys.Errno {
	if len(part) == 0 { // no pages: a pipe cannot carry that
		s.lastCall = "sendto"
		return sys.SendTo(fd, nil, nil)
	}
	s.lastCall = "vmsplice"
	if n, e := vmsplice(s.pipe.W, part); e != 0 || n != len(part) {
		s.empty()
		return orShort(e)
	}
	s.lastCall = "splice"
	n, e := sys.Splice(s.pipe.R, fd, len(part))
	if e == unix.ECONNREFUSED {
		// An ICMP error about a packet before this one.
		n, e = sys.Splice(s.pipe.R, fd, len(part))
	}
	if e != 0 || n != len(part) {
		s.empty()
		return orShort(e)
	}
	return 0
}

// orShort is the error of a call that moved less than all of a packet.
func orShort(e sys.Errno) sys.Errno {
	if e == 0 {
		return unix.EIO
	}
	return e
}

// empty takes out of the pipe what the socket did not take.
func (s *splice) empty() {
	for {
		if n, err := unix.Read(s.pipe.R, s.throwAway); n <= 0 && !errors.Is(err, unix.EINTR) {
			return
		}
	}
}

// about says ENETDOWN where the interface is down: without a route there
// the kernel only says that the network is unreachable.
func (s *splice) about(e sys.Errno) sys.Errno {
	if e != unix.ENETUNREACH && e != unix.EHOSTUNREACH && e != unix.EADDRNOTAVAIL {
		return e
	}
	r, err := unix.NewIfreq(s.device)
	if err == nil {
		err = unix.IoctlIfreq(s.sockets.any(), unix.SIOCGIFFLAGS, r)
	}
	switch {
	case errors.Is(err, unix.ENODEV):
		return unix.ENODEV
	case err == nil && r.Uint16()&unix.IFF_UP == 0:
		return unix.ENETDOWN
	}
	return e
}

func (s *splice) drop(n int)    { s.first += n }
func (s *splice) queued() int   { return len(s.queue) - s.first }
func (s *splice) inFlight() int { return 0 } // nobody can know
func (s *splice) borrows() bool { return false }
func (s *splice) call() string  { return s.lastCall }

func (s *splice) socket() (int, bool) { return s.sockets.any(), false }

// rebind opens sockets anew: SO_BINDTODEVICE holds the index.
func (s *splice) rebind(int) error { return s.sockets.reopen() }

func (s *splice) close() error {
	s.sockets.close()
	s.pipe.Close()
	return s.arena.close()
}

// openRouted opens a socket that sends by one interface from any source.
func openRouted(device string, family, kind, protocol int) (int, error) {
	fd, err := unix.Socket(family, kind|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, protocol)
	if err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	if err := setRouted(fd, device, family); err != nil {
		sys.Close(fd)
		return -1, err
	}
	return fd, nil
}

func setRouted(fd int, device string, family int) error {
	if e := sys.SetTransparent(fd, family); e != 0 {
		return os.NewSyscallError("setsockopt(IP_TRANSPARENT)", e)
	}
	if err := unix.BindToDevice(fd, device); err != nil {
		return os.NewSyscallError("setsockopt(SO_BINDTODEVICE)", err)
	}
	if err := setOption(fd, "SO_BROADCAST", unix.SOL_SOCKET, unix.SO_BROADCAST); err != nil {
		return err
	}
	// What comes back is not for us, and shall not fill a buffer.
	reject := []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K}}
	prog := unix.SockFprog{Len: uint16(len(reject)), Filter: &reject[0]}
	return os.NewSyscallError("setsockopt(SO_ATTACH_FILTER)",
		unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &prog))
}
