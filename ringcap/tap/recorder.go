package tap

import (
	"context"
	"fmt"
	"os"
	"reflect"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/tproxyd/tproxyd/ringcap"
)

const (
	defaultMemory    = 64 << 20
	defaultPerMinute = 6
	// recorderBlock is small, as the retire time costs a block when there is
	// little traffic, and a block is the least that is forgotten.
	recorderBlock = 128 << 10
	minBlocks     = 8
	// atLeast is how far back the history reaches however little there is.
	atLeast                          = time.Minute
	minRecordRetire, maxRecordRetire = 20 * time.Millisecond, time.Second
)

// recorder is a Recorder that runs: rings that are their own history.
type recorder struct {
	Recorder
	names  []string
	filter []Endpoint
	sel    *selector // of the snap length
	retire time.Duration
	rings  []*recorderRing
	log    *zap.Logger

	cancel context.CancelFunc
	wg     sync.WaitGroup // of the rings

	mu       sync.Mutex
	closed   bool
	written  []time.Time // of the last minute
	pending  context.Context
	cut      context.CancelFunc // ends the waiting of pending dumps
	triggers sync.WaitGroup
}

type recorderRing struct {
	name   string
	number uint32
	ring   *ringcap.Ring
	rec    *ringcap.Recorder
}

// planRecorder opens the recorder of a plan, or keeps the present one, whose
// history then stays.
func (m *Manager) planRecorder(p *plan) (*recorder, error) {
	cfg := p.cfg.Recorder
	if cfg == nil {
		return nil, nil
	}
	r := &recorder{Recorder: *cfg, names: p.names, filter: p.cfg.Endpoints, log: m.log}
	var err error
	if r.sel, err = newSelector(Selection{Snap: cfg.Snap}); err != nil {
		return nil, fmt.Errorf("check recorder: %w", err)
	}
	if cfg.Directory != "" {
		if err := prepare(cfg.Directory); err != nil {
			return nil, fmt.Errorf("check recorder: %w", err)
		}
	}
	if cfg.Memory < 0 || cfg.Before < 0 || cfg.After < 0 || cfg.PerMinute < 0 || cfg.KeepFiles < 0 {
		return nil, fmt.Errorf("check recorder: a value is negative")
	}
	if old := m.recorder.Load(); old != nil && reflect.DeepEqual(old.Recorder, r.Recorder) && slices.Equal(old.names, r.names) {
		for _, x := range old.rings {
			if err := x.ring.SetFilter(kernelFilter(r.filter, r.sel.snapLen(), false)); err != nil {
				return nil, fmt.Errorf("change filter of recorder: %w", err)
			}
		}
		return old, nil
	}
	for _, name := range p.names {
		if err := m.openRecorderRing(r, name); err != nil {
			r.closeRings(&m.rings)
			return nil, fmt.Errorf("record %s: %w", name, err)
		}
	}
	return r, nil
}

// openRecorderRing opens a ring with its part of the memory.
func (m *Manager) openRecorderRing(r *recorder, name string) error {
	memory := r.Memory
	if memory == 0 {
		memory = defaultMemory
	}
	blocks := max(int(memory/int64(len(r.names))/recorderBlock), minBlocks)
	kept := blocks - ringcap.Spare(blocks)
	r.retire = min(max(max(atLeast, r.Before+r.After)/time.Duration(kept), minRecordRetire), maxRecordRetire).Truncate(time.Millisecond)
	ring, err := ringcap.Open(ringcap.Config{
		Interface: name, BlockSize: recorderBlock, Blocks: blocks, Retire: r.retire,
		Filter: kernelFilter(r.filter, r.sel.snapLen(), false),
	})
	if err != nil {
		return err
	}
	rec, err := ringcap.NewRecorder(ring, 0)
	if err != nil {
		_ = ring.Close() // it has no reader
		return err
	}
	r.rings = append(r.rings, &recorderRing{name, m.dir.number(name), ring, rec})
	return nil
}

// swapRecorder makes another recorder, or none, the present one.
func (m *Manager) swapRecorder(next *recorder) {
	old := m.recorder.Load()
	if old == next {
		return
	}
	if next != nil {
		next.start(&m.rings)
	}
	m.recorder.Store(next)
	if old != nil {
		old.stop(&m.rings)
	}
}

func (r *recorder) start(all *rings) {
	ctx, cancel := context.WithCancel(context.Background())
	r.cancel = cancel
	r.pending, r.cut = context.WithCancel(context.Background())
	for _, x := range r.rings {
		all.add(ring{x.name, true, x.ring})
		r.wg.Go(func() {
			if err := x.rec.Run(ctx); err != nil {
				r.log.Error("recording", zap.String("interface", x.name), zap.Error(err))
			}
		})
	}
}

// stop writes at once what triggers are waiting to write, and ends.
func (r *recorder) stop(all *rings) {
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	r.cut()
	r.triggers.Wait()
	r.cancel()
	r.wg.Wait()
	r.closeRings(all)
}

func (r *recorder) closeRings(all *rings) {
	for _, x := range r.rings {
		last, err := x.ring.Stats()
		if err == nil {
			all.remove(x.ring, last)
		}
		if err := x.ring.Close(); err != nil {
			r.log.Error("recorder's ring stays open", zap.String("interface", x.name), zap.Error(err))
		}
	}
}

// setLinger keeps flows known for as long as there are packets of them.
func (m *Manager) setLinger() {
	linger := minLinger
	if r := m.recorder.Load(); r != nil {
		linger = max(linger, 2*atLeast, r.Before+r.After+minLinger)
	}
	m.reg.mu.Lock()
	defer m.reg.mu.Unlock()
	m.reg.linger = linger
}

// use keeps the recorder from being stopped until the function that it returns
// is called. It is false when that has happened already.
func (r *recorder) use() (done func(), ok bool) {
	if r == nil {
		return nil, false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil, false
	}
	r.triggers.Add(1)
	return r.triggers.Done, true
}

// removeOld leaves so many of the files that triggers wrote.
func (r *recorder) removeOld() error {
	if r.KeepFiles == 0 {
		return nil
	}
	all, err := os.ReadDir(r.Directory) // sorted, and so by time
	if err != nil {
		return fmt.Errorf("list dumps: %w", err)
	}
	all = slices.DeleteFunc(all, func(e os.DirEntry) bool { return !dumpName.MatchString(e.Name()) })
	for _, e := range all[:max(len(all)-r.KeepFiles, 0)] {
		if err := os.Remove(r.path(e.Name())); err != nil {
			return fmt.Errorf("remove old dump: %w", err)
		}
	}
	return nil
}
