package zcsend

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tproxyd/tproxyd/internal/sys"
)

const (
	// lookAgain is how long a wait trusts in being woken. The kernel wakes a
	// sender when less than half of its buffer is in use (sock_writeable()),
	// which need not be when there is room for one more frame.
	lookAgain = 20 * time.Millisecond
	// backoff is how long to leave a full queue alone, which wakes nobody.
	backoff = 100 * time.Microsecond
	// leaveAfter is after how many flushes without a wait the poller is left.
	leaveAfter = 256
	// stallLimit is how long a full queue may take nothing at all.
	stallLimit = time.Second
)

// waiter waits for the packet socket of an engine, by the runtime's poller:
// edge-triggered, because a socket with a ring is writable by poll(2) whenever
// its buffer has room, also with a ring that is full.
//
// It is in the poller only while there is something to wait for: a socket that
// is watched is woken for each frame that has left (sock_def_write_space()),
// which costs a tenth of sending it.
type waiter struct {
	file  *os.File // nil while nobody waits
	raw   syscall.RawConn
	since int // flushes since the last wait
	timer *time.Timer
}

func (w *waiter) init() {
	w.timer = time.NewTimer(time.Hour)
	w.timer.Stop()
}

// enter puts a socket into the poller.
func (w *waiter) enter(fd int) error {
	w.since = 0
	if w.file != nil {
		return nil
	}
	// A duplicate, so that the engine closes its own.
	fd, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("fcntl(F_DUPFD_CLOEXEC)", err)
	}
	w.file = os.NewFile(uintptr(fd), "packet socket")
	if w.raw, err = w.file.SyscallConn(); err != nil {
		return errors.Join(err, w.leave())
	}
	return nil
}

// flushed leaves the poller after a while without a wait.
func (w *waiter) flushed() {
	if w.file == nil {
		return
	}
	if w.since++; w.since >= leaveAfter {
		_ = w.leave() // only a duplicate is closed
	}
}

func (w *waiter) leave() error {
	if w.file == nil {
		return nil
	}
	err := w.file.Close()
	w.file, w.raw = nil, nil
	return err
}

func (w *waiter) close() error {
	w.timer.Stop()
	return w.leave()
}

// until waits for cond, which it calls first and whenever the socket may have
// room.
func (w *waiter) until(ctx context.Context, cond func() bool) error {
	for {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("wait for room: %w", err)
		}
		if err := w.file.SetWriteDeadline(time.Now().Add(lookAgain)); err != nil {
			return err
		}
		err := w.raw.Write(func(uintptr) bool { return cond() })
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return err
		}
	}
}

// sleep waits for a moment.
func (w *waiter) sleep(ctx context.Context) error {
	w.timer.Reset(backoff)
	select {
	case <-w.timer.C:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait for room: %w", ctx.Err())
	}
}

// waitCond waits until cond holds. Without a socket that wakes it looks again
// after a moment.
func (s *Sender) waitCond(ctx context.Context, cond func() bool) error {
	if cond() {
		return nil
	}
	s.counters.waits.Add(1)
	if fd, waits := s.engine.socket(); waits {
		if err := s.waiter.enter(fd); err != nil {
			return err
		}
		return s.waiter.until(ctx, cond)
	}
	for !cond() {
		if err := s.waiter.sleep(ctx); err != nil {
			return err
		}
	}
	return nil
}

// waitFlush flushes when there is room again, and returns what that came to.
func (s *Sender) waitFlush(ctx context.Context, e sys.Errno) (sys.Errno, error) {
	if e == unix.ENOBUFS {
		s.counters.waits.Add(1)
		err := s.waiter.sleep(ctx)
		return e, err
	}
	err := s.waitCond(ctx, func() bool {
		e = s.step()
		return e != unix.EAGAIN
	})
	return e, err
}

// waitRoom waits for a place in the queue. The queue is flushed before, or
// nothing would ever make room.
func (s *Sender) waitRoom(ctx context.Context) error {
	if err := s.Flush(ctx); err != nil && final(err) {
		return err
	}
	err := s.waitCond(ctx, func() bool { return s.engine.reserve(0) != nil })
	s.count(0, 0)
	return err
}

func (s *Sender) waitIdle(ctx context.Context) error {
	return s.waitCond(ctx, func() bool { return s.engine.inFlight() == 0 })
}
