package zcsend

import (
	"context"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tproxyd/tproxyd/internal/sys"
)

// Flush hands over what is queued, waiting for room if it must. A frame that
// the kernel refuses does not keep those behind it from being sent; the error
// is that of the first. It does not wait until the kernel has read the frames:
// that is Drain.
func (s *Sender) Flush(ctx context.Context) error {
	var first error
	if s.gone && s.engine.queued() > 0 {
		if err := s.reconnect(); err != nil {
			return s.dropAll(err)
		}
	}
	for s.engine.queued() > 0 {
		e := s.step()
		if full(e) {
			if s.dropFull || e == unix.ENOBUFS && s.stalled() {
				return s.dropAll(keep(first, refusal(s.engine.call(), e)))
			}
			var err error
			if e, err = s.waitFlush(ctx, e); err != nil {
				return s.dropAll(keep(first, err))
			}
		}
		switch {
		case e == 0 || full(e):
		case linkDown(e):
			s.lost(e)
			return s.dropAll(keep(first, refusal(s.engine.call(), e)))
		default:
			first = keep(first, refusal(s.engine.call(), e))
			s.dropFirst()
		}
	}
	s.waiter.flushed()
	return first
}

func keep(first, err error) error {
	if first != nil {
		return first
	}
	return err
}

// step hands over what it can without waiting.
func (s *Sender) step() sys.Errno {
	taken, bytes, e := s.engine.flush()
	s.count(taken, bytes)
	if taken > 0 {
		s.blocked = time.Time{}
	}
	return e
}

// stalled says whether the queue behind the socket has taken nothing for too
// long. It says ENOBUFS when it is full, but a device also says so of a frame
// that it will never take, as a veth does of one longer than its peer's MTU.
func (s *Sender) stalled() bool {
	now := time.Now()
	if s.blocked.IsZero() {
		s.blocked = now
	}
	if now.Sub(s.blocked) < s.patience {
		return false
	}
	s.blocked = time.Time{}
	return true
}

// count brings the counters up to date after taken frames went to the kernel.
func (s *Sender) count(taken, bytes int) {
	if taken > 0 {
		s.counters.taken.Add(uint64(taken))
		s.counters.bytes.Add(uint64(bytes))
	}
	s.counters.queued.Store(uint64(s.engine.queued()))
	s.counters.inFlight.Store(uint64(s.engine.inFlight()))
}

func (s *Sender) dropFirst() {
	s.engine.drop(1)
	s.counters.refused.Add(1)
	s.count(0, 0)
}

func (s *Sender) dropAll(err error) error {
	n := s.engine.queued()
	s.engine.drop(n)
	s.counters.refused.Add(uint64(n))
	s.count(0, 0)
	return err
}

// makeRoom flushes when a batch is together, and waits for a place in the
// queue.
func (s *Sender) makeRoom(ctx context.Context) error {
	if s.engine.queued() >= s.batch {
		if err := s.Flush(ctx); err != nil && final(err) {
			return err
		}
	}
	if s.engine.reserve(0) != nil {
		return nil
	}
	if s.dropFull {
		return ErrNoRoom
	}
	return s.waitRoom(ctx)
}

// Drain flushes and waits until nothing is in flight: until the kernel reads
// none of the memory that frames were reserved in. With a device that is
// stopped this may never be; ctx ends the waiting.
func (s *Sender) Drain(ctx context.Context) error {
	if err := s.Flush(ctx); err != nil {
		return err
	}
	err := s.waitIdle(ctx)
	s.count(0, 0)
	return err
}
