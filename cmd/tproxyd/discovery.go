package main

import (
	"context"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/tproxyd/tproxyd/config"
	"github.com/tproxyd/tproxyd/internal/discovery"
	"go.uber.org/zap"
)

// answers are what the names in a configuration stand for, as far as they are
// known. The intervals of the queries are left out: an answer outlives a change
// of how often it is asked for.
type answers map[discovery.Query]discovery.Answer

// of is the answer to q.
func (a answers) of(q discovery.Query) discovery.Answer {
	q.Interval = 0
	return a[q]
}

// add has an answer to q, unless there is a later one.
func (a answers) add(q discovery.Query, answer discovery.Answer) {
	q.Interval = 0
	if known, ok := a[q]; !ok || answer.At.After(known.At) {
		a[q] = answer
	}
}

// queryOf is the question for the addresses of b, a backend of s that is given
// by name.
func queryOf(s config.Service, b config.Backend) discovery.Query {
	return discovery.Query{Host: b.Host, Port: b.Port, SRV: b.SRV, Interval: s.ResolveInterval}
}

// queries are all questions of c.
func queries(c *config.Config) []discovery.Query {
	var all []discovery.Query
	add := func(s config.Service, pool []config.Backend) {
		for _, b := range pool {
			if b.Discovered() {
				all = append(all, queryOf(s, b))
			}
		}
	}
	for _, s := range c.Services {
		add(s, s.Backends)
		for _, r := range s.Routes {
			add(s, r.Backends)
		}
	}
	return all
}

// resolver finds out what the names of backends stand for. All methods but those of
// prometheus.Collector are of the control goroutine.
type resolver struct {
	log     *zap.Logger
	changed chan struct{} // has room for one: an answer has changed

	settings config.Resolver
	current  *discovery.Resolver // nil: there were no names yet
	earlier  answers             // good ones to the questions that there were before
	stop     context.CancelFunc
	running  sync.WaitGroup

	mu sync.Mutex // for Collect, to read current
}

func newResolver(log *zap.Logger) *resolver {
	return &resolver{log: log, changed: make(chan struct{}, 1), earlier: answers{}}
}

// set asks for the names of c from now on, and for those of also, which may be
// nil. Changed settings begin anew, with the answers that there are.
func (n *resolver) set(c, also *config.Config) error {
	all := queries(c)
	if also != nil {
		all = append(all, queries(also)...)
	}
	if n.current == nil && len(all) == 0 {
		return nil
	}
	known, kept := n.answers(), answers{}
	for _, q := range all {
		if a := known.of(q); !a.At.IsZero() {
			kept.add(q, a)
		}
	}
	if n.current == nil || !reflect.DeepEqual(n.settings, c.Resolver) {
		if err := n.start(c.Resolver); err != nil {
			return err
		}
	}
	n.earlier = kept
	n.current.Set(all)
	return nil
}

// await waits until each name of c has been asked for once, but not for long: a
// name server that does not answer must not keep the others from being served.
func (n *resolver) await(c *config.Config) {
	all := queries(c)
	limit := time.NewTimer(c.Resolver.Timeout)
	defer limit.Stop()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		known := n.answers()
		if !slices.ContainsFunc(all, func(q discovery.Query) bool {
			a := known.of(q)
			return a.At.IsZero() && a.Err == nil
		}) {
			return
		}
		select {
		case <-limit.C:
			return
		case <-tick.C:
		}
	}
}

func (n *resolver) start(s config.Resolver) error {
	r, err := discovery.New(discovery.Config{
		Servers: s.Servers, Timeout: s.Timeout, MinInterval: s.MinInterval, MaxInterval: s.MaxInterval,
		Log: n.log, Changed: n.note,
	})
	if err != nil {
		return fmt.Errorf("resolver: %w", err)
	}
	n.close()
	ctx, cancel := context.WithCancel(context.Background())
	n.mu.Lock()
	n.current = r
	n.mu.Unlock()
	n.settings, n.stop = s, cancel
	n.running.Go(func() { _ = r.Run(ctx) }) // nil, as it ends by its context
	return nil
}

// note is told of each changed answer.
func (n *resolver) note(discovery.Query, []discovery.Endpoint) {
	select {
	case n.changed <- struct{}{}:
	default:
	}
}

// answers are the last good ones.
func (n *resolver) answers() answers {
	all := maps.Clone(n.earlier)
	if n.current != nil {
		for q, a := range n.current.Answers() {
			all.add(q, a)
		}
	}
	return all
}

func (n *resolver) close() {
	if n.stop != nil {
		n.stop()
		n.running.Wait()
		n.stop = nil
	}
}

// Describe implements prometheus.Collector. What there is depends on the names.
func (n *resolver) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (n *resolver) Collect(ch chan<- prometheus.Metric) {
	n.mu.Lock()
	r := n.current
	n.mu.Unlock()
	if r != nil {
		r.Collect(ch)
	}
}
