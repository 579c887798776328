package load

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tproxyd/tproxyd/internal/sys"
)

const (
	// socketBuffer is what the ends ask for, so that the proxy loses first.
	socketBuffer = 16 << 20
	// receiveSlots is how many messages one recvmmsg(2) takes.
	receiveSlots = 64
	// receiveTurns bounds how often one socket is read before others have a turn.
	receiveTurns = 4
)

// datagramSocket is a UDP socket of either end.
type datagramSocket struct {
	fd       int
	port     uint16
	overflow uint32 // as the kernel last told: counted since the socket was made
	before   uint32 // overflow at the last start
}

// openDatagramSocket binds to the address and port, 0 for any port.
func openDatagramSocket(addr netip.AddrPort) (*datagramSocket, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	s := &datagramSocket{fd: fd}
	if err := s.prepare(addr); err != nil {
		return nil, errors.Join(fmt.Errorf("open datagram socket on %s: %w", addr, err), unix.Close(fd))
	}
	return s, nil
}

func (s *datagramSocket) prepare(addr netip.AddrPort) error {
	if err := unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_RXQ_OVFL, 1); err != nil {
		return os.NewSyscallError("setsockopt(SO_RXQ_OVFL)", err)
	}
	if err := unix.SetsockoptInt(s.fd, unix.SOL_UDP, unix.UDP_GRO, 1); err != nil {
		return os.NewSyscallError("setsockopt(UDP_GRO)", err)
	}
	// Beyond net.core.rmem_max only with CAP_NET_ADMIN of the whole machine.
	if unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, socketBuffer) != nil {
		if err := unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_RCVBUF, socketBuffer); err != nil {
			return os.NewSyscallError("setsockopt(SO_RCVBUF)", err)
		}
	}
	if err := unix.Bind(s.fd, &unix.SockaddrInet4{Addr: addr.Addr().As4(), Port: int(addr.Port())}); err != nil {
		return os.NewSyscallError("bind", err)
	}
	name, err := unix.Getsockname(s.fd)
	if err != nil {
		return os.NewSyscallError("getsockname", err)
	}
	s.port = uint16(name.(*unix.SockaddrInet4).Port)
	return nil
}

// close drops the socket; a process that ends does not care for errors.
func (s *datagramSocket) close() { _ = unix.Close(s.fd) }

// receive hands over what the socket has, datagram by datagram, as far as the
// turns go. The bytes are lent until handle returns.
func (s *datagramSocket) receive(r *sys.Receiver, handle func(from netip.AddrPort, data []byte)) error {
	for range receiveTurns {
		n, e := r.Receive(s.fd, 0)
		if e == unix.EAGAIN || e == unix.EINTR {
			return nil
		}
		if e != 0 {
			return os.NewSyscallError("recvmmsg", e)
		}
		for i := range n {
			control := r.Control(i)
			if control.Truncated {
				return errors.New("message or its control data was truncated")
			}
			s.overflow = max(s.overflow, control.Overflow)
			from, run := r.From(i).AddrPort(), r.Data(i)
			for control.Segment > 0 && len(run) > control.Segment {
				handle(from, run[:control.Segment])
				run = run[control.Segment:]
			}
			handle(from, run)
		}
		if n < r.Slots() {
			return nil
		}
	}
	return nil
}

// monotonic is the time in nanoseconds by a clock that all processes share:
// clock_gettime(2).
func monotonic() int64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		panic(os.NewSyscallError("clock_gettime", err)) // every kernel has it
	}
	return ts.Nano()
}

// timer is a timerfd(2) that ticks.
type timer struct{ fd int }

func newTimer() (timer, error) {
	fd, err := unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC)
	return timer{fd}, os.NewSyscallError("timerfd_create", err)
}

// tick makes the descriptor readable every so often; never with 0.
func (t timer) tick(every time.Duration) error {
	step := unix.NsecToTimespec(int64(every))
	spec := unix.ItimerSpec{Interval: step, Value: step}
	return os.NewSyscallError("timerfd_settime", unix.TimerfdSettime(t.fd, 0, &spec, nil))
}

// ticked makes the descriptor unreadable until the next tick.
func (t timer) ticked() error {
	var count [8]byte
	if _, err := unix.Read(t.fd, count[:]); err != nil && !again(err) {
		return os.NewSyscallError("read(timerfd)", err)
	}
	return nil
}

func (t timer) close() { _ = unix.Close(t.fd) }
