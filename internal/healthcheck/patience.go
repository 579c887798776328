package healthcheck

import (
	"context"
	"errors"
	"sync"
	"time"
)

var (
	errTimeout = errors.New("no answer in time")
	errLate    = errors.New("this process did not get to run")
)

// quarters make a timeout; more than maxLate late ones end the check.
const (
	quarters = 4
	maxLate  = 12
)

// patience ends a context after a time in which this process ran.
type patience struct {
	now     func() time.Time
	cancel  context.CancelCauseFunc
	quarter time.Duration

	mu            sync.Mutex
	timer         *time.Timer
	due           time.Time
	counted, late int
	stopped       bool
}

// withPatience returns a context that ends for errTimeout or errLate. stop has
// to be called.
func withPatience(parent context.Context, timeout time.Duration, now func() time.Time) (ctx context.Context, stop func()) {
	ctx, cancel := context.WithCancelCause(parent)
	p := &patience{now: now, cancel: cancel, quarter: max(timeout/quarters, 1)}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.due = now().Add(p.quarter)
	p.timer = time.AfterFunc(p.quarter, p.tick)
	return ctx, p.stop
}

func (p *patience) stop() {
	p.mu.Lock()
	p.stopped = true
	p.timer.Stop()
	p.mu.Unlock()
	p.cancel(nil)
}

func (p *patience) tick() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stopped {
		return
	}
	now := p.now()
	if p.isLate(now.Sub(p.due)) {
		p.late++
	} else {
		p.counted++
	}
	switch {
	case p.counted == quarters:
		p.cancel(errTimeout)
	case p.late > maxLate:
		p.cancel(errLate)
	default:
		p.due = now.Add(p.quarter)
		p.timer.Reset(p.quarter)
	}
}

// isLate says whether a timer that fires so long after it was due shows that
// this process stood still. Timers of an idle machine are late by less than
// a few milliseconds.
func (p *patience) isLate(by time.Duration) bool { return by > max(p.quarter/2, 5*time.Millisecond) }
