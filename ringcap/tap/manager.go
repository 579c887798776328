package tap

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/tproxyd/tproxyd/ringcap"
)

const (
	defaultSettle = 20 * time.Millisecond
	defaultRetire = 10 * time.Millisecond // ringcap's
	// updateEvery is how soon what the proxy tells is taken over when there is
	// no traffic.
	updateEvery = 50 * time.Millisecond
	// minLinger is how long a flow stays known after its end.
	minLinger = 10 * time.Second
	// flushLimit is how long stopping a capture waits for what is in the rings.
	flushLimit = 2 * time.Second
)

// Options of a Manager.
type Options struct {
	Log *zap.Logger // zap.NewNop if nil
	// Completed is called for each flow that was captured from its beginning,
	// some time after its End, by one goroutine. It must not call the Manager.
	Completed func(Completeness)
	// Application is in the header of each file.
	Application string
}

// Manager runs captures, viewers and the recorder.
type Manager struct {
	opts  Options
	log   *zap.Logger
	reg   *registry
	dir   directory
	rings rings
	sinks sinkList

	mu       sync.Mutex // of everything that starts and stops
	cfg      Config
	names    []string // of interfaces
	captures map[string]*entry
	viewers  []*sink
	sources  []*source
	closed   bool
	fanouts  uint16

	recorder atomic.Pointer[recorder]

	reportMu      sync.Mutex
	reportWait    time.Duration // after the end of a flow
	reportSources []*source

	pastMu  sync.Mutex
	past    map[string]CaptureStats // of captures that have ended
	viewed  CaptureStats            // of viewers that have ended
	dumps   atomic.Uint64
	refused atomic.Uint64

	completeness prometheus.Histogram
	stop         context.CancelFunc
	wg           sync.WaitGroup
}

// entry is a capture that is configured.
type entry struct {
	Capture
	wanted bool
	run    *capture // nil if it does not
	err    error    // why it does not, although it is wanted
}

// Errors to branch on.
var (
	// ErrUnknown is about a capture that is not configured.
	ErrUnknown = errors.New("no such capture")
	// ErrNoRecorder is about a dump without a recorder.
	ErrNoRecorder = errors.New("no recorder is configured")
	// ErrClosed is about a Manager that is.
	ErrClosed = errors.New("the tap is closed")
)

// New makes a Manager that runs nothing yet.
func New(opts Options) *Manager {
	m := &Manager{opts: opts, log: opts.Log, captures: map[string]*entry{}, past: map[string]CaptureStats{}}
	if m.log == nil {
		m.log = zap.NewNop()
	}
	m.dir.application = opts.Application
	m.rings.past = map[ringID]ringcap.Stats{}
	m.reg = newRegistry(m.sinks.event)
	m.completeness = newCompleteness()
	ctx, cancel := context.WithCancel(context.Background())
	m.stop = cancel
	m.wg.Go(func() { m.keepUp(ctx) })
	return m
}

// keepUp takes over what the proxy told, reports flows that have ended, and
// forgets them.
func (m *Manager) keepUp(ctx context.Context) {
	t := time.NewTicker(updateEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-t.C:
			m.reg.update()
			m.report(now)
			m.reg.forget(now)
		}
	}
}

// Open tells of a flow whose client is known. It never waits.
func (m *Manager) Open(f *Flow) { m.Dial(f) }

// Dial tells the rest, or something new, of a flow: its backend was chosen, or
// its source address is now known. It never waits.
func (m *Manager) Dial(f *Flow) {
	info := *f
	m.reg.tell(told{flow: &info, at: m.reg.now().UnixNano()})
}

// End tells that a flow has ended, and how many bytes were relayed from and to
// the client. It never waits.
func (m *Manager) End(id, in, out uint64, reason string) {
	m.reg.tell(told{id: id, in: in, out: out, reason: reason, at: m.reg.now().UnixNano()})
}

// Event puts a comment into captures and streams. It never waits.
func (m *Manager) Event(e Event) {
	if e.Time.IsZero() {
		e.Time = m.reg.now()
	}
	m.reg.tell(told{event: &e})
}

// Close ends everything and completes the files. Viewers end, too, but those
// that wait for their writer do when that returns.
func (m *Manager) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return nil
	}
	m.closed = true
	m.swapRecorder(nil)
	m.stopSources(m.sources)
	m.sources = nil
	m.sinks.store(nil)
	for _, v := range m.viewers {
		v.abandon()
	}
	for _, e := range m.captures {
		m.end(e.run)
		e.run = nil
	}
	m.stop()
	m.wg.Wait()
	return nil
}

// settle is how long a packet waits for its flow.
func (m *Manager) settle() time.Duration {
	if m.cfg.Settle > 0 {
		return m.cfg.Settle
	}
	return defaultSettle
}

func retire(r Ring) time.Duration {
	if r.Retire > 0 {
		return r.Retire
	}
	return defaultRetire
}

// end stops a capture that is in no list any more, and keeps its counts.
func (m *Manager) end(c *capture) {
	if c == nil {
		return
	}
	c.stop()
	m.pastMu.Lock()
	defer m.pastMu.Unlock()
	m.past[c.Name] = m.past[c.Name].plus(m.statsOf(c.sink))
}

// watch says which sources report has to wait for.
func (m *Manager) watch() {
	m.reportMu.Lock()
	defer m.reportMu.Unlock()
	m.reportWait = m.settle() + 2*retire(m.cfg.Ring) + completeGrace
	m.reportSources = m.sources
}

// flush waits until what was captured before is with the sinks.
func (m *Manager) flush() {
	now := time.Now()
	due := now.Add(retire(m.cfg.Ring) + 10*time.Millisecond)
	time.Sleep(time.Until(due))
	for time.Since(now) < flushLimit && slices.ContainsFunc(m.sources, func(s *source) bool { return !s.caughtUp(due) }) {
		time.Sleep(time.Millisecond)
	}
}

// Start starts a capture that is configured. One that runs goes on.
func (m *Manager) Start(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	e := m.captures[name]
	switch {
	case m.closed:
		return ErrClosed
	case e == nil:
		return ErrUnknown
	case e.run != nil:
		return nil
	}
	c, err := newCapture(e.Capture, &m.dir, &m.rings, m.log)
	if err != nil {
		return err
	}
	opened, err := m.openSources(m.cfg, m.names, m.sources)
	if err != nil {
		return err
	}
	e.run, e.wanted = c, true
	e.err = m.begin(c)
	m.useSources(m.sources, opened)
	return e.err
}

// begin starts a capture. Without files it has no sink either.
func (m *Manager) begin(c *capture) error {
	c.sink.ringBase = m.rings.totals()
	err := c.start()
	if err != nil {
		m.captures[c.Name].run = nil
	}
	m.listSinks()
	return err
}

// Stop stops a capture and completes its file, which has everything that was
// captured until now.
func (m *Manager) Stop(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	e := m.captures[name]
	if e == nil {
		return ErrUnknown
	}
	e.wanted = false
	if e.run == nil {
		return nil
	}
	m.flush()
	c := e.run
	e.run = nil
	m.listSinks()
	m.end(c)
	m.retune()
	return nil
}

// listSinks publishes who gets what is captured.
func (m *Manager) listSinks() {
	all := slices.Clone(m.viewers)
	for _, e := range m.captures {
		if e.run != nil {
			all = append(all, e.run.sink)
		}
	}
	m.sinks.store(all)
}

// addViewer makes a sink one that gets what is captured.
func (m *Manager) addViewer(s *sink) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return ErrClosed
	}
	opened, err := m.openSources(m.cfg, m.names, m.sources)
	if err != nil {
		return err
	}
	s.ringBase = m.rings.totals()
	m.viewers = append(m.viewers, s)
	m.listSinks()
	m.useSources(m.sources, opened)
	return nil
}

func (m *Manager) removeViewer(s *sink) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.viewers = slices.DeleteFunc(m.viewers, func(v *sink) bool { return v == s })
	m.listSinks()
	s.abandon()
	m.pastMu.Lock()
	m.viewed = m.viewed.plus(m.statsOf(s))
	m.pastMu.Unlock()
	if !m.closed {
		m.retune()
	}
}
