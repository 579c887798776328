package healthcheck

import (
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// The metrics' names.
const (
	metricChecks      = "tproxyd_healthcheck_total"
	metricDuration    = "tproxyd_healthcheck_duration_seconds"
	metricReturnPath  = "tproxyd_backend_return_path_ok"
	metricCertificate = "tproxyd_healthcheck_certificate_days_left"
)

// durationBounds are in seconds.
var durationBounds = [...]float64{0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10}

// counts is what metrics tell of a target.
type counts struct {
	mu       sync.Mutex
	outcomes [outcomeCount]uint64
	buckets  [len(durationBounds)]uint64 // by the first bound that holds it
	sum      time.Duration
	path     pathVerdict
	ends     time.Time
}

func (n *counts) add(r *Result, path pathVerdict, ends time.Time) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.outcomes[r.Outcome]++
	n.sum += r.Duration
	for i, bound := range durationBounds {
		if r.Duration.Seconds() <= bound {
			n.buckets[i]++
			break
		}
	}
	if path != pathUnknown {
		n.path = path
	}
	if !ends.IsZero() {
		n.ends = ends
	}
}

// forget drops what may not hold for a changed target.
func (n *counts) forget() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.path, n.ends = pathUnknown, time.Time{}
}

// Collector reads the counters of Checks at each scrape.
type Collector struct {
	checks                                   *Checks
	total, duration, returnPath, certificate *prometheus.Desc
}

// NewCollector returns the collector of c. Targets that are gone have no
// series.
func NewCollector(c *Checks) *Collector {
	target := []string{"service", "backend"}
	return &Collector{
		checks:      c,
		total:       prometheus.NewDesc(metricChecks, "Health checks made, by the result. Those that end in late or error say nothing about the backend.", []string{"service", "backend", "result"}, nil),
		duration:    prometheus.NewDesc(metricDuration, "Time of a health check, whatever its result.", target, nil),
		returnPath:  prometheus.NewDesc(metricReturnPath, "Whether answers to the spoofed source of health checks come back through this host (1) or not (0).", target, nil),
		certificate: prometheus.NewDesc(metricCertificate, "Days until the certificate ends that a health check saw last; below 0 it has ended.", target, nil),
	}
}

// Describe implements prometheus.Collector.
func (c *Collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.total, c.duration, c.returnPath, c.certificate} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c *Collector) Collect(ch chan<- prometheus.Metric) {
	c.checks.mu.Lock()
	all := make(map[key]*counts, len(c.checks.runners))
	for k, r := range c.checks.runners {
		all[k] = r.counts
	}
	c.checks.mu.Unlock()
	for k, n := range all {
		c.target(ch, n, k.service, k.backend)
	}
}

func (c *Collector) target(ch chan<- prometheus.Metric, n *counts, labels ...string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	var total uint64
	for o, v := range n.outcomes {
		total += v
		if v > 0 || Outcome(o) == OK {
			ch <- prometheus.MustNewConstMetric(c.total, prometheus.CounterValue, float64(v), append(labels, Outcome(o).String())...)
		}
	}
	buckets := make(map[float64]uint64, len(durationBounds))
	var below uint64
	for i, bound := range durationBounds {
		below += n.buckets[i]
		buckets[bound] = below
	}
	ch <- prometheus.MustNewConstHistogram(c.duration, total, n.sum.Seconds(), buckets, labels...)
	if n.path != pathUnknown {
		v := 0.0
		if n.path == pathOK {
			v = 1
		}
		ch <- prometheus.MustNewConstMetric(c.returnPath, prometheus.GaugeValue, v, labels...)
	}
	if !n.ends.IsZero() {
		ch <- prometheus.MustNewConstMetric(c.certificate, prometheus.GaugeValue, time.Until(n.ends).Hours()/24, labels...)
	}
}
