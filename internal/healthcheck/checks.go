package healthcheck

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"go.uber.org/zap"
)

// Options of Checks.
type Options struct {
	// Log gets verdicts on return paths and errors of this host, once for each
	// change, and at debug level every check; nil is no log.
	Log *zap.Logger
	// Report is given each result that says something about the backend. It is
	// called by many goroutines, and those of one target come one after the
	// other. A call that began before a Set may end after it.
	Report func(Result)
	// Changing says whether to check a backend at its fast interval; it is asked
	// after each report. nil is never.
	Changing func(service, backend string) bool
	// Paused says whether to leave out the checks of a backend for now; it is
	// asked before each. nil is never.
	Paused func(service, backend string) bool
}

// Checks checks targets. Its methods may be called by any goroutine.
type Checks struct {
	options Options
	now     func() time.Time

	mu      sync.Mutex
	runners map[key]*runner
	ctx     context.Context // of Run; nil: it has not begun, or has ended
	wg      sync.WaitGroup
}

// New returns Checks of no targets yet.
func New(o Options) *Checks {
	if o.Log == nil {
		o.Log = zap.NewNop()
	}
	if o.Report == nil {
		o.Report = func(Result) {}
	}
	if o.Changing == nil {
		o.Changing = func(string, string) bool { return false }
	}
	if o.Paused == nil {
		o.Paused = func(string, string) bool { return false }
	}
	return &Checks{options: o, now: time.Now, runners: map[key]*runner{}}
}

// Set makes targets the ones that are checked. One that was there and is equal
// goes on with its schedule; a new or changed one is first checked at
// a random moment of its interval. It does not wait for checks that end.
func (c *Checks) Set(targets []Target) {
	c.mu.Lock()
	defer c.mu.Unlock()
	runners := make(map[key]*runner, len(targets))
	for i := range targets {
		t := targets[i]
		k := t.key()
		r := c.runners[k]
		switch {
		case r == nil:
			r = newRunner(c, t, &counts{})
		case !r.target.equal(&t):
			r.stop()
			r.counts.forget()
			r = newRunner(c, t, r.counts)
		}
		delete(c.runners, k)
		runners[k] = r
	}
	for _, r := range c.runners {
		r.stop()
	}
	c.runners = runners
	c.start()
}

// start begins the checks of runners that do not run yet. mu is held.
func (c *Checks) start() {
	if c.ctx == nil {
		return
	}
	for _, r := range c.runners {
		if r.cancel == nil {
			var ctx context.Context
			ctx, r.cancel = context.WithCancel(c.ctx)
			c.wg.Go(func() { r.run(ctx) })
		}
	}
}

// Run checks until ctx ends, and waits for the checks that run. It is called
// once.
func (c *Checks) Run(ctx context.Context) error {
	c.mu.Lock()
	c.ctx = ctx
	c.start()
	c.mu.Unlock()
	<-ctx.Done()
	c.mu.Lock()
	c.ctx = nil
	for _, r := range c.runners {
		r.stop()
	}
	c.mu.Unlock()
	c.wg.Wait()
	return nil
}

// runner checks one target.
type runner struct {
	checks *Checks
	target Target
	counts *counts            // outlive the runner when the target changes
	cancel context.CancelFunc // nil: it does not run; guarded by Checks.mu

	// As last logged.
	path   pathVerdict
	failed bool
}

func newRunner(c *Checks, t Target, n *counts) *runner {
	return &runner{checks: c, target: t, counts: n}
}

func (r *runner) stop() {
	if r.cancel != nil {
		r.cancel()
	}
}

func (r *runner) run(ctx context.Context) {
	defer r.cancel()
	c := r.target.Check
	interval := c.interval(r.changing())
	due := time.Now().Add(rand.N(interval))
	timer := time.NewTimer(time.Until(together(due, interval)))
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		if !r.checks.options.Paused(r.target.Service, r.target.Backend) {
			r.once(ctx)
		}
		// Missed turns are not made up for.
		interval = c.interval(r.changing())
		due = due.Add(jittered(interval, c.Jitter))
		if now := time.Now(); due.Before(now) {
			due = now
		}
		timer.Reset(time.Until(together(due, interval)))
	}
}

func (r *runner) changing() bool {
	return r.checks.options.Changing(r.target.Service, r.target.Backend)
}

// together puts off a check by up to a tenth of its interval, and 100 ms,
// to where others are put off to: to wake up costs more than a check does.
func together(due time.Time, interval time.Duration) time.Time {
	grid := min(interval/10, 100*time.Millisecond)
	return due.Truncate(grid).Add(grid)
}

// jittered is d plus or minus up to percent of it.
func jittered(d time.Duration, percent int) time.Duration {
	spread := d * time.Duration(percent) / 100
	if spread <= 0 {
		return d
	}
	return d - spread + rand.N(2*spread+1)
}

// once makes one check and tells everybody.
func (r *runner) once(ctx context.Context) {
	begin := time.Now()
	f := r.target.check(ctx, r.checks.now)
	if ctx.Err() != nil {
		return
	}
	result := Result{
		Service: r.target.Service, Backend: r.target.Backend,
		OK: f.outcome == OK, Outcome: f.outcome, Detail: f.detail, Duration: time.Since(begin),
	}
	path := r.returnPath(&f)
	r.counts.add(&result, path, f.ends)
	r.log(&result, path)
	if f.outcome.known() {
		r.checks.options.Report(result)
	}
}

// returnPath is what f says of the way back to a spoofed address.
func (r *runner) returnPath(f *finding) pathVerdict {
	switch {
	case !r.target.Spoof.IsValid():
		return pathUnknown
	case f.outcome == NoReturnPath:
		return pathBroken
	case f.answered:
		return pathOK
	}
	return pathUnknown
}
