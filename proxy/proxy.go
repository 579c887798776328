package proxy

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tproxyd/tproxyd/internal/accesslog"
	"github.com/tproxyd/tproxyd/internal/sys"
	"go.uber.org/zap"
)

// Records takes the records of ended flows, in batches. Neither call may wait:
// workers make them.
type Records interface {
	// Get returns an empty batch with room for records.
	Get() []accesslog.Record
	// Offer hands a full batch over. If it reports false, the batch is lost
	// and still the caller's.
	Offer([]accesslog.Record) bool
}

// Options are what New needs besides the configuration.
type Options struct {
	Workers int         // 0: one per CPU
	Log     *zap.Logger // nil: none
	Records Records     // must be set if Config.Records is
	Spare   int         // descriptors that are left to the rest of the process; 0: 6
	Tap     Tap         // may be nil; see SetTap

	// Serving is called, unless it is nil, when what [Proxy.Serving] says of a
	// service may have changed. It must not wait, nor call the proxy.
	Serving func()
}

// Proxy is the data plane.
type Proxy struct {
	log      *zap.Logger
	records  Records
	spare    int
	serving  func()
	workers  []*worker
	events   chan event
	guard    loopGuard
	governor *governor

	tuples   tupleSet
	gso, gro bool // UDP_SEGMENT and UDP_GRO are there
	mark     atomic.Uint32

	active         atomic.Int64 // TCP flows
	maxConnections atomic.Int64
	flows          atomic.Int64 // UDP flows
	maxFlows       atomic.Int64
	shadows        atomic.Int64 // copies
	maxShadows     atomic.Int64
	limits         atomic.Pointer[Limits]

	mu       sync.Mutex // held by the control plane, all through a drain
	config   Config
	stats    map[string]*serviceStats
	sockets  map[listenKey][]int         // listening descriptors, by worker
	held     map[listenKey]*atomic.Int64 // UDP flows on a listen address, of all workers
	draining bool
	closed   bool

	view atomic.Pointer[view]

	tapMu sync.Mutex // one SetTap at a time

	running  sync.WaitGroup
	observer sync.WaitGroup
	stopLog  chan struct{}
	failed   chan error // a worker's loop ended by an error
}

// view is what readers see of the configuration, without waiting for the
// control plane. It is not changed.
type view struct {
	services []*service
	stats    []*serviceStats // of all services there ever were
}

// New makes the workers and starts them. They have no listeners until Apply.
func New(o Options) (*Proxy, error) {
	if o.Workers == 0 {
		o.Workers = runtime.NumCPU()
	}
	if o.Log == nil {
		o.Log = zap.NewNop()
	}
	if o.Spare == 0 {
		o.Spare = defaultSpare
	}
	p := &Proxy{
		log:     o.Log,
		records: o.Records,
		spare:   o.Spare,
		serving: o.Serving,
		events:  make(chan event, 64),
		stats:   map[string]*serviceStats{},
		sockets: map[listenKey][]int{},
		held:    map[listenKey]*atomic.Int64{},
		gso:     sys.GSOSupported(),
		gro:     sys.GROSupported(),
		stopLog: make(chan struct{}),
		failed:  make(chan error, o.Workers),
	}
	for id := range o.Workers {
		w, err := newWorker(id, p)
		if err != nil {
			for _, w := range p.workers {
				w.loop.Close()
			}
			return nil, fmt.Errorf("start worker %d: %w", id, err)
		}
		p.workers = append(p.workers, w)
	}
	p.view.Store(&view{})
	p.governor = newGovernor(p)
	p.observer.Add(2)
	go p.logEvents(p.stopLog, &p.observer)
	go p.governor.run(p.stopLog, &p.observer)
	for _, w := range p.workers {
		p.running.Add(1)
		go p.runWorker(w)
	}
	if o.Tap != nil {
		p.SetTap(o.Tap)
	}
	return p, nil
}

func (p *Proxy) runWorker(w *worker) {
	defer p.running.Done()
	if err := w.run(); err != nil {
		p.failed <- fmt.Errorf("worker %d: %w", w.id, err)
	}
}

// Failed delivers an error when a worker ends that should not have.
func (p *Proxy) Failed() <-chan error { return p.failed }

// each runs fn on every worker's thread and waits for all.
func (p *Proxy) each(fn func(*worker)) {
	var wait sync.WaitGroup
	for _, w := range p.workers {
		wait.Add(1)
		if !w.loop.Post(func() { defer wait.Done(); fn(w) }) {
			wait.Done()
		}
	}
	wait.Wait()
}

// Alive returns nil if every worker turns within d.
func (p *Proxy) Alive(d time.Duration) error {
	answers := make(chan int, len(p.workers))
	missing := map[int]bool{}
	for _, w := range p.workers {
		missing[w.id] = true
		if !w.loop.Post(func() { answers <- w.id }) {
			return fmt.Errorf("worker %d has ended", w.id)
		}
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	for len(missing) > 0 {
		select {
		case id := <-answers:
			delete(missing, id)
		case <-timer.C:
			return fmt.Errorf("%d of %d workers did not turn within %v", len(missing), len(p.workers), d)
		}
	}
	return nil
}

// Drain closes the listeners and lets flows end by themselves until ctx ends
// or the configured drain timeout is over. What is left then is cut.
func (p *Proxy) Drain(ctx context.Context) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.draining = true
	timeout := p.config.DrainTimeout
	p.each(func(w *worker) { w.drain(timeout) })
	p.sockets = map[listenKey][]int{}
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for p.active.Load()+p.flows.Load() > 0 {
		select {
		case <-ctx.Done():
			p.each((*worker).cut)
			return
		case <-tick.C:
		}
	}
}

// Close cuts what flows there are and ends the workers. A second call does
// nothing.
func (p *Proxy) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil
	}
	p.closed, p.draining = true, true
	p.each(func(w *worker) {
		w.drain(0)
		w.cut()
		w.loop.Stop()
	})
	p.running.Wait()
	close(p.stopLog)
	p.observer.Wait()
	for _, w := range p.workers {
		w.loop.Close()
	}
	select {
	case err := <-p.failed:
		return err
	default:
		return nil
	}
}

// ErrDraining is what Apply returns once the proxy is shutting down.
var ErrDraining = errors.New("the proxy is draining")

// Limits are the bounds the process works in.
type Limits struct {
	Descriptors    uint64 // RLIMIT_NOFILE
	MaxConnections int64  // TCP
	MaxFlows       int64  // UDP; 0 without a UDP service
	MaxPipes       int
	MaxShadows     int64 // copies of flows; 0 without a shadow
}

// Limits returns the bounds now in force.
func (p *Proxy) Limits() Limits {
	if l := p.limits.Load(); l != nil {
		return *l
	}
	return Limits{}
}

const (
	defaultSpare = 6 // descriptors for reloads, /proc and the like
	// shadowReserve is the part of the descriptors that copies of flows have, so that
	// they never take one from a flow: one in so many.
	shadowReserve = 4
	maxPipes      = 1000 // below the 1024 of 64 KiB that a user gets by fs.pipe-user-pages-soft
)

// setLimits derives the limits from the descriptors that are left when all
// listeners are open, apart from so many that are about to close.
func (p *Proxy) setLimits(c Config, closing int) error {
	nofile, err := sys.RaiseDescriptorLimit()
	if err != nil {
		return err
	}
	open, err := sys.OpenDescriptors()
	if err != nil {
		return err
	}
	// Flows have two each, and flows and their pipes have their own count.
	open -= closing + 2*int(p.active.Load()) + int(p.shadows.Load())
	for _, w := range p.workers {
		open -= 2*int(w.stats.pipesIdle.Load()+w.stats.pipesLent.Load()) + int(w.stats.flowSockets.Load())
	}
	room := int64(nofile) - int64(open) - int64(p.spare)
	pipes := int(min(maxPipes, room/100)) // one descriptor in fifty
	room -= 2 * int64(pipes)
	var shadows int64
	if slices.ContainsFunc(c.Services, func(s Service) bool { return s.Shadow != nil }) {
		shadows = room / shadowReserve
	}
	most := divide(room-shadows, c)
	if most.connections < 1 || most.flows < 1 {
		return fmt.Errorf("RLIMIT_NOFILE is %d and %d descriptors are open: no room for a connection; raise LimitNOFILE", nofile, open)
	}
	l := Limits{Descriptors: nofile, MaxPipes: pipes, MaxShadows: shadows}
	l.MaxConnections = p.limit("max_connections", c.MaxConnections, most.connections, nofile)
	l.MaxFlows = p.limit("max_flows", c.MaxFlows, most.flows, nofile)
	if !servesUDP(c) {
		l.MaxFlows = 0
	}
	p.maxConnections.Store(l.MaxConnections)
	p.maxFlows.Store(l.MaxFlows)
	p.maxShadows.Store(shadows)
	p.limits.Store(&l)
	// With less than one for each, some workers copy.
	p.each(func(w *worker) { w.pipes.max = (pipes + w.id) / len(p.workers) })
	return nil
}

// limit is the lower one of what is configured, 0 being all there is, and what
// is possible.
func (p *Proxy) limit(key string, configured int, possible int64, nofile uint64) int64 {
	if configured == 0 {
		return possible
	}
	if int64(configured) > possible {
		p.log.Warn(key+" is more than the descriptor limit allows; the lower number holds. Raise LimitNOFILE",
			zap.Int(key, configured), zap.Int64("possible", possible), zap.Uint64("descriptors", nofile))
		return possible
	}
	return int64(configured)
}

// capacity is how many flows have room.
type capacity struct{ connections, flows int64 }

// divide shares room descriptors among the protocols of c's services: half
// each if there are both, unless one is configured to need less. What one
// protocol's clients do does not cost the other's.
func divide(room int64, c Config) capacity {
	var tcp bool
	var perFlow int64
	for _, s := range c.Services {
		if s.Protocol == TCP {
			tcp = true
		} else {
			perFlow = max(perFlow, s.flowSockets())
		}
	}
	if perFlow == 0 {
		return capacity{connections: room / 2, flows: room}
	}
	if !tcp {
		return capacity{connections: room / 2, flows: room / perFlow}
	}
	share := room / 2
	switch {
	case c.MaxConnections > 0 && 2*int64(c.MaxConnections) < share:
		share = 2 * int64(c.MaxConnections)
	case c.MaxFlows > 0 && perFlow*int64(c.MaxFlows) < room-share:
		share = room - perFlow*int64(c.MaxFlows)
	}
	return capacity{connections: share / 2, flows: (room - share) / perFlow}
}

func servesUDP(c Config) bool {
	return slices.ContainsFunc(c.Services, func(s Service) bool { return s.Protocol == UDP })
}

// flowSockets is how many descriptors a UDP flow of s has.
func (s *Service) flowSockets() int64 {
	for _, a := range s.Listen {
		if s.Mode == Intercept || a.Addr().IsUnspecified() {
			return 2
		}
	}
	return 1
}
