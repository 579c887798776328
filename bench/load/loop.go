package load

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Streams are a process's standard input and output.
type Streams struct {
	In, Out *os.File
}

// loop waits for the descriptors of one process and for its commands.
type loop struct {
	epfd    int
	stdin   int
	out     *os.File
	pending []byte // the beginning of a command line
	started time.Time
	events  [256]unix.EpollEvent
}

func newLoop(s Streams) (*loop, error) {
	epfd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	l := &loop{epfd: epfd, stdin: int(s.In.Fd()), out: s.Out, started: time.Now()}
	if err := l.add(l.stdin, unix.EPOLLIN); err != nil {
		return nil, errors.Join(fmt.Errorf("watch standard input: %w", err), l.close())
	}
	return l, nil
}

func (l *loop) close() error { return os.NewSyscallError("close", unix.Close(l.epfd)) }

func (l *loop) add(fd int, events uint32) error {
	ev := unix.EpollEvent{Events: events, Fd: int32(fd)}
	return os.NewSyscallError("epoll_ctl(EPOLL_CTL_ADD)", unix.EpollCtl(l.epfd, unix.EPOLL_CTL_ADD, fd, &ev))
}

func (l *loop) modify(fd int, events uint32) error {
	ev := unix.EpollEvent{Events: events, Fd: int32(fd)}
	return os.NewSyscallError("epoll_ctl(EPOLL_CTL_MOD)", unix.EpollCtl(l.epfd, unix.EPOLL_CTL_MOD, fd, &ev))
}

// now is the monotonic time in nanoseconds since the process started.
func (l *loop) now() int64 { return int64(time.Since(l.started)) }

// errEnd is what wait returns at the end of the standard input.
var errEnd = errors.New("standard input ended")

// serve handles events until the standard input ends.
func (l *loop) serve(ready func(fd int, events uint32), command func(string) error) error {
	for {
		err := l.wait(-1, ready, command)
		if errors.Is(err, errEnd) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// wait handles one batch of events. It returns errEnd when the parent is gone.
func (l *loop) wait(timeout time.Duration, ready func(fd int, events uint32), command func(string) error) error {
	ms := -1
	if timeout >= 0 {
		ms = int(timeout.Milliseconds())
	}
	n, err := unix.EpollWait(l.epfd, l.events[:], ms)
	if errors.Is(err, unix.EINTR) {
		return nil
	}
	if err != nil {
		return os.NewSyscallError("epoll_wait", err)
	}
	for _, ev := range l.events[:n] {
		if int(ev.Fd) != l.stdin {
			ready(int(ev.Fd), ev.Events)
			continue
		}
		if err := l.readCommands(command); err != nil {
			return err
		}
	}
	return nil
}

func (l *loop) readCommands(command func(string) error) error {
	buf := make([]byte, 256)
	n, err := unix.Read(l.stdin, buf)
	switch {
	case errors.Is(err, unix.EINTR), errors.Is(err, unix.EAGAIN):
		return nil
	case err != nil:
		return os.NewSyscallError("read(stdin)", err)
	case n == 0:
		return errEnd
	}
	l.pending = append(l.pending, buf[:n]...)
	for {
		line, rest, found := bytes.Cut(l.pending, []byte("\n"))
		if !found {
			return nil
		}
		l.pending = rest
		if err := command(string(line)); err != nil {
			return err
		}
	}
}

func (l *loop) answer(report any) error {
	line, err := json.Marshal(report)
	if err != nil {
		return fmt.Errorf("encode report: %w", err)
	}
	if _, err := l.out.Write(append(line, '\n')); err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	return nil
}
