package discovery

import (
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

// counts are the queries by what they ended with.
type counts [7]atomic.Uint64

func (c *counts) add(result string) {
	for i, r := range results {
		if r == result {
			c[i].Add(1)
		}
	}
}

var (
	descQueries = prometheus.NewDesc("tproxyd_resolver_queries_total",
		"Messages sent to name servers, by what became of them.", []string{"result"}, nil)
	descEndpoints = prometheus.NewDesc("tproxyd_resolver_endpoints",
		"Addresses that a name stands for, by the last good answer.", []string{"name"}, nil)
	descSuccess = prometheus.NewDesc("tproxyd_resolver_last_success_timestamp_seconds",
		"When the last good answer for a name came; 0: never.", []string{"name"}, nil)
)

// Describe is part of prometheus.Collector.
func (r *Resolver) Describe(ch chan<- *prometheus.Desc) {
	ch <- descQueries
	ch <- descEndpoints
	ch <- descSuccess
}

// Collect is part of prometheus.Collector.
func (r *Resolver) Collect(ch chan<- prometheus.Metric) {
	for i, result := range results {
		n := float64(r.client.counts[i].Load())
		ch <- prometheus.MustNewConstMetric(descQueries, prometheus.CounterValue, n, result)
	}
	for name, a := range r.byName() {
		at := 0.0
		if !a.At.IsZero() {
			at = float64(a.At.UnixMilli()) / 1e3
		}
		ch <- prometheus.MustNewConstMetric(descEndpoints, prometheus.GaugeValue, float64(len(a.Endpoints)), name)
		ch <- prometheus.MustNewConstMetric(descSuccess, prometheus.GaugeValue, at, name)
	}
}

// byName is one answer for each name: of the queries that differ only in their
// interval the one that is longest ago.
func (r *Resolver) byName() map[string]Answer {
	r.mu.Lock()
	defer r.mu.Unlock()
	names := make(map[string]Answer)
	for q, e := range r.entries {
		a, ok := names[q.String()]
		if !ok || e.answer.At.Before(a.At) {
			names[q.String()] = e.answer
		}
	}
	return names
}
