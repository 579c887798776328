package tap

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sys/unix"
)

// completeGrace is how long after its end a flow is looked at, beyond what the
// rings and the sorter need: readers have to get a processor.
const completeGrace = 250 * time.Millisecond

func newCompleteness() prometheus.Histogram {
	return prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: metricCompleteness, Help: "How much of what was relayed of a flow the tap has seen, from 0 to 1, of flows that it saw from the beginning.",
		Buckets: []float64{0, 0.5, 0.9, 0.99, 0.999, 1},
	})
}

// newEpoch notes that the set of rings has changed. What was seen of flows that
// lived then is not complete.
func (r *registry) newEpoch(running bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.epoch++
	r.since, r.running = r.now().UnixNano(), running
}

// report looks at the flows that have ended some time ago.
func (m *Manager) report(now time.Time) {
	m.reportMu.Lock()
	wait, sources := m.reportWait, m.reportSources
	m.reportMu.Unlock()
	for {
		c, ok, more := m.reg.completed(now.Add(-wait), func(ended time.Time) bool {
			for _, s := range sources {
				if !s.caughtUp(ended.Add(wait - completeGrace)) {
					return false
				}
			}
			return true
		})
		if !more {
			return
		}
		if !ok {
			continue
		}
		m.completeness.Observe(c.Ratio)
		if m.opts.Completed != nil {
			m.opts.Completed(c)
		}
	}
}

// completed takes the next flow that ended before a time. ok is false if
// nothing can be said about it.
func (r *registry) completed(before time.Time, caughtUp func(time.Time) bool) (c Completeness, ok, more bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.reported == len(r.ended) {
		return c, false, false
	}
	f := r.ended[r.reported]
	ended := f.ended.Load()
	if len(r.ended)-r.reported <= maxEnded && (ended > before.UnixNano() || !caughtUp(time.Unix(0, ended))) {
		return c, false, false
	}
	r.reported++
	if !r.running || f.epoch != r.epoch || f.began < r.since {
		return c, false, true
	}
	c, ok = f.completeness()
	return c, ok, true
}

// completeness compares. The registry's lock is held.
func (f *flow) completeness() (Completeness, bool) {
	info := f.info.Load()
	c := Completeness{Flow: f.id, Service: info.Service, Reason: f.reason, RelayedIn: f.in, RelayedOut: f.out}
	var seen [2]bool
	whole := true
	for _, l := range f.legs {
		l.mu.Lock()
		in, out := l.in.bytes, l.out.bytes
		if info.Protocol == unix.IPPROTO_TCP && l.seen {
			whole = whole && l.in.whole
		}
		seen[l.side] = seen[l.side] || l.seen
		l.mu.Unlock()
		if l.side == client {
			c.ClientIn, c.ClientOut = c.ClientIn+in, c.ClientOut+out
		} else {
			c.UpstreamIn, c.UpstreamOut = c.UpstreamIn+in, c.UpstreamOut+out
		}
	}
	c.Ratio = 1
	if seen[client] {
		c.Ratio = min(c.Ratio, ratio(c.ClientIn, f.in), ratio(c.ClientOut, f.out))
	}
	if seen[upstream] {
		c.Ratio = min(c.Ratio, ratio(c.UpstreamIn, f.in), ratio(c.UpstreamOut, f.out))
	}
	if !seen[client] && !seen[upstream] {
		c.Ratio = 0
	}
	return c, whole
}

func ratio(seen, relayed uint64) float64 {
	if seen >= relayed {
		return 1
	}
	return float64(seen) / float64(relayed)
}
