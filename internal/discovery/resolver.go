package discovery

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"
)

// Config says whom to ask and how often.
type Config struct {
	// Servers are asked in this order, and names are taken as they stand. Empty:
	// those of ResolvConf, with its search list and options, read anew for each
	// look-up.
	Servers []netip.AddrPort

	// Timeout of one try with one server; 0: that of ResolvConf.
	Timeout time.Duration

	// Bounds of what a TTL may ask for; 0: 1 s and 5 min. A Query's own interval
	// is bounded below only. Failures are asked again after MinInterval, and
	// then seldomer, but never after more than MaxInterval.
	MinInterval, MaxInterval time.Duration

	Log *zap.Logger // nil: none

	// Changed is told the first good answer to a Query and each that differs
	// from the one before. It is called by one goroutine at a time, and must
	// not call Set. Shortly after a Set it may still get an answer to a Query
	// that is gone. The endpoints must not be changed.
	Changed func(Query, []Endpoint)

	ResolvConf, Hosts string // files; "": /etc/resolv.conf and /etc/hosts

	Now func() time.Time // nil: time.Now

	// Wait waits before a Query is asked again; nil: by a timer. It returns an
	// error if the context ends.
	Wait func(context.Context, Query, time.Duration) error
}

// A Resolver keeps the answers to a set of queries. It is a
// prometheus.Collector.
type Resolver struct {
	cfg    Config
	log    *zap.Logger
	client client
	set    chan struct{} // has room for one: entries has changed
	notify sync.Mutex    // held while Changed is called

	mu      sync.Mutex
	entries map[Query]*entry
}

// An entry is a Query while it is in the set.
type entry struct {
	query  Query
	answer Answer
	cancel context.CancelFunc // nil: its goroutine is not running
	memory memory             // of that goroutine alone
	failed bool               // likewise: the last look-up was not good
	delay  time.Duration      // likewise: after the last failure
}

// New is a Resolver without queries.
func New(cfg Config) (*Resolver, error) {
	if cfg.MinInterval == 0 {
		cfg.MinInterval = time.Second
	}
	if cfg.MaxInterval == 0 {
		cfg.MaxInterval = max(5*time.Minute, cfg.MinInterval)
	}
	if cfg.Timeout < 0 || cfg.MinInterval < 0 || cfg.MaxInterval < cfg.MinInterval {
		return nil, fmt.Errorf("timeout %v, intervals %v to %v: not a range of positive times",
			cfg.Timeout, cfg.MinInterval, cfg.MaxInterval)
	}
	for _, s := range cfg.Servers {
		if !s.IsValid() || s.Port() == 0 {
			return nil, fmt.Errorf("server %v: not an address and port", s)
		}
	}
	if cfg.ResolvConf == "" {
		cfg.ResolvConf = "/etc/resolv.conf"
	}
	if cfg.Hosts == "" {
		cfg.Hosts = "/etc/hosts"
	}
	if cfg.Log == nil {
		cfg.Log = zap.NewNop()
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Wait == nil {
		cfg.Wait = wait
	}
	return &Resolver{
		cfg: cfg, log: cfg.Log.Named("discovery"),
		client:  client{slots: make(chan struct{}, maxInFlight), counts: new(counts)},
		set:     make(chan struct{}, 1),
		entries: make(map[Query]*entry),
	}, nil
}

func wait(ctx context.Context, _ Query, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Set says which queries there are. Those that were there go on as if nothing
// had happened, with their answers; new ones are asked at once.
func (r *Resolver) Set(queries []Query) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for q, e := range r.entries {
		if !slices.Contains(queries, q) {
			if e.cancel != nil {
				e.cancel()
			}
			delete(r.entries, q)
		}
	}
	for _, q := range queries {
		if r.entries[q] == nil {
			r.entries[q] = &entry{query: q}
		}
	}
	select {
	case r.set <- struct{}{}:
	default:
	}
}

// Answers is what is known of each Query of the set that has been asked.
func (r *Resolver) Answers() map[Query]Answer {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := make(map[Query]Answer)
	for q, e := range r.entries {
		if !e.answer.At.IsZero() || e.answer.Err != nil {
			all[q] = e.answer
		}
	}
	return all
}

// Run asks until ctx ends; once.
func (r *Resolver) Run(ctx context.Context) error {
	var all sync.WaitGroup
	defer all.Wait()
	for {
		r.start(ctx, &all)
		select {
		case <-r.set:
		case <-ctx.Done():
			return nil
		}
	}
}

// start runs the entries that are not running.
func (r *Resolver) start(ctx context.Context, all *sync.WaitGroup) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range r.entries {
		if e.cancel != nil {
			continue
		}
		ctx, cancel := context.WithCancel(ctx)
		e.cancel = cancel
		all.Go(func() {
			defer cancel()
			r.follow(ctx, e)
		})
	}
}

// follow looks e up again and again.
func (r *Resolver) follow(ctx context.Context, e *entry) {
	for {
		f := r.lookup(ctx, e)
		if ctx.Err() != nil {
			return
		}
		r.publish(ctx, e, &f)
		if err := r.cfg.Wait(ctx, e.query, r.delay(e, &f)); err != nil {
			return
		}
	}
}

// lookup is one round.
func (r *Resolver) lookup(ctx context.Context, e *entry) finding {
	l := lookup{client: &r.client, last: e.memory}
	hosts, err := readFile(r.cfg.Hosts)
	if err != nil {
		return finding{err: err}
	}
	l.hosts = hosts
	l.servers = servers{addrs: r.cfg.Servers, timeout: r.cfg.Timeout, attempts: defaultAttempts}
	if len(r.cfg.Servers) == 0 {
		text, err := readFile(r.cfg.ResolvConf)
		if err != nil {
			return finding{err: err}
		}
		l.conf = parseResolvConf(text)
		l.servers.addrs, l.servers.attempts = l.conf.servers, l.conf.attempts
		if l.servers.timeout == 0 {
			l.servers.timeout = l.conf.timeout
		}
	}
	if l.servers.timeout == 0 {
		l.servers.timeout = defaultTimeout
	}
	return l.find(ctx, e.query)
}

// publish makes a finding the answer, if it is good, and tells about it.
func (r *Resolver) publish(ctx context.Context, e *entry, f *finding) {
	r.notify.Lock()
	defer r.notify.Unlock()
	r.mu.Lock()
	if ctx.Err() != nil { // no longer in the set
		r.mu.Unlock()
		return
	}
	before := e.answer
	e.answer.Err = f.err
	good := len(f.endpoints) > 0
	if good {
		e.memory = f.memory
		e.answer.Endpoints, e.answer.At, e.answer.Expires = f.endpoints, r.cfg.Now(), time.Time{}
		if f.ttl < never {
			e.answer.Expires = e.answer.At.Add(f.ttl)
		}
	}
	r.mu.Unlock()
	r.tell(e, f, len(before.Endpoints))
	if good && !slices.Equal(before.Endpoints, f.endpoints) {
		r.log.Info("endpoints changed", zap.Stringer("name", e.query),
			zap.Int("before", len(before.Endpoints)), zap.Int("now", len(f.endpoints)))
		if r.cfg.Changed != nil {
			r.cfg.Changed(e.query, f.endpoints)
		}
	}
}

// never is longer than any TTL.
const never = 100 * 365 * 24 * time.Hour

// tell logs the beginning and the end of failing.
func (r *Resolver) tell(e *entry, f *finding, kept int) {
	failed := f.err != nil
	if failed == e.failed {
		return
	}
	e.failed = failed
	switch {
	case !failed:
		r.log.Info("name resolves again", zap.Stringer("name", e.query))
	case len(f.endpoints) > 0:
		r.log.Warn("name resolves in part; the rest is as of the last good answer",
			zap.Stringer("name", e.query), zap.Error(f.err))
	default:
		r.log.Warn("name does not resolve; its last good endpoints stay",
			zap.Stringer("name", e.query), zap.Int("endpoints", kept), zap.Error(f.err))
	}
}

// delay is how long to wait after a finding, a little less at random, so that
// neither names nor nodes ask all at once.
func (r *Resolver) delay(e *entry, f *finding) time.Duration {
	var d time.Duration
	switch {
	case f.err != nil:
		e.delay = min(max(2*e.delay, r.cfg.MinInterval), r.cfg.MaxInterval)
		d = e.delay
	case e.query.Interval > 0:
		e.delay, d = 0, e.query.Interval
	default:
		e.delay, d = 0, min(f.ttl, r.cfg.MaxInterval)
	}
	d -= rand.N(d/jitter + 1)
	return max(d, r.cfg.MinInterval)
}

// jitter is the part of a delay that is random: one tenth.
const jitter = 10
