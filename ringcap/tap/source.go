package tap

import (
	"context"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/tproxyd/tproxyd/ringcap"
)

// source is a ring with its reader, which takes blocks from the kernel, and its
// sorter, which finds the flows and hands the blocks to the sinks.
type source struct {
	name     string
	number   uint32 // of the interface
	loopback bool
	ring     *ringcap.Ring
	keep     uint64 // blocks, of which the newest may be held
	cfg      Ring
	after    int64 // packets up to here have come from another ring

	log    *zap.Logger
	settle atomic.Int64 // nanoseconds
	reg    *registry
	sinks  *sinkList

	cancel  context.CancelFunc
	wg      sync.WaitGroup
	waiting chan taken
	dead    atomic.Bool  // the reader has ended by itself
	behind  atomic.Int64 // blocks taken and not yet handed on
	clock   atomic.Int64 // when the one was taken that is being sorted
	newest  atomic.Int64 // time of a packet
}

// taken is a block that waits for the sorter.
type taken struct {
	block *ringcap.Block
	at    time.Time
}

// openSource opens a ring; start makes it run.
func openSource(cfg ringcap.Config) (*source, error) {
	s := &source{name: cfg.Interface}
	link, err := net.InterfaceByName(cfg.Interface)
	if err != nil {
		return nil, fmt.Errorf("find interface %s: %w", cfg.Interface, err)
	}
	s.loopback = link.Flags&net.FlagLoopback != 0
	if s.ring, err = ringcap.Open(cfg); err != nil {
		return nil, err
	}
	_, blocks := s.ring.Geometry()
	s.keep = uint64(max(blocks-ringcap.Spare(blocks), 1))
	s.waiting = make(chan taken, blocks) // never full: a block is in it once
	return s, nil
}

func (s *source) start() {
	ctx, cancel := context.WithCancel(context.Background())
	s.cancel = cancel
	s.wg.Go(func() { s.read(ctx) })
	s.wg.Go(func() { s.sort(ctx) })
}

// stop ends the source after everything that was captured has been handed on.
func (s *source) stop() (last ringcap.Stats) {
	if s.cancel != nil {
		s.cancel()
		s.wg.Wait()
	}
	last, err := s.ring.Stats()
	if err != nil {
		s.log.Warn("ring's counts may be short", zap.String("interface", s.name), zap.Error(err))
	}
	if err := s.ring.Close(); err != nil {
		s.log.Error("ring stays open", zap.String("interface", s.name), zap.Error(err))
	}
	return last
}

func (s *source) read(ctx context.Context) {
	defer close(s.waiting)
	for b, err := range s.ring.Blocks(ctx) {
		if err != nil {
			s.log.Error("reading a ring", zap.String("interface", s.name), zap.Error(err))
		}
		if b == nil {
			s.dead.Store(true)
			return
		}
		b.Retain()
		s.behind.Add(1)
		s.waiting <- taken{b, time.Now()}
	}
}

func (s *source) sort(ctx context.Context) {
	for t := range s.waiting {
		s.clock.Store(t.at.UnixNano())
		s.reg.update()
		b := newBatch(t.block, s)
		n := b.classify(s.reg, 0, false)
		if n < t.block.Count() {
			pause(ctx, time.Until(t.at.Add(time.Duration(s.settle.Load()))))
			s.reg.update()
			b.classify(s.reg, n, true)
		}
		if b.newest > s.newest.Load() {
			s.newest.Store(b.newest)
		}
		s.sinks.push(b)
		b.release()
		s.behind.Add(-1)
	}
}

// caughtUp says whether the blocks that were taken until a time have been
// handed on.
func (s *source) caughtUp(t time.Time) bool {
	return s.behind.Load() == 0 || s.clock.Load() > t.UnixNano()
}

// pause waits, but not beyond the end of ctx.
func pause(ctx context.Context, d time.Duration) {
	if d <= 0 {
		return
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
