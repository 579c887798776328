package proxy

import (
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

// shadowResult is how the copy of a flow ended.
type shadowResult uint8

const (
	shadowOK          shadowResult = iota // the shadow got everything, and ended
	shadowRefused                         // RST in answer to SYN, or ICMP port unreachable
	shadowUnreachable                     // no route, ICMP unreachable, or no answer to SYN
	shadowReset                           // it went away in mid-stream
	shadowOverflow                        // it took less than came, and the pipe was full
	shadowTimeout                         // it did not end in time after the flow
	shadowCut                             // the flow was cut or reset, and so was the copy
	shadowOff                             // switched off by a reload
	shadowLimit                           // too many of them already
	shadowResources                       // no descriptor, pipe or memory
	shadowResultCount
)

var shadowResultNames = [shadowResultCount]string{
	"ok", "refused", "unreachable", "reset", "overflow", "timeout", "cut", "off", "limit", "resources",
}

// shadowShard is one worker's counters of the shadow of a service. The worker
// writes, others read.
type shadowShard struct {
	results  [shadowResultCount]atomic.Uint64
	active   atomic.Int64
	bytes    [2]atomic.Uint64 // sent to it, received from it
	mismatch atomic.Uint64
}

var shadowBytesNames = [2]string{"sent", "received"}

const (
	metricShadowFlows    = "tproxyd_shadow_flows_total"
	metricShadowActive   = "tproxyd_shadow_flows_active"
	metricShadowBytes    = "tproxyd_shadow_bytes_total"
	metricShadowMismatch = "tproxyd_shadow_mismatch_total"
)

// shadow shows the counters of a service's shadow.
func (c *Collector) shadow(ch chan<- prometheus.Metric, s *serviceStats) {
	total := func(f func(*shadowShard) uint64) uint64 {
		return s.total(func(sh *shard) uint64 { return f(&sh.shadow) })
	}
	for r, name := range shadowResultNames {
		c.counter(ch, metricShadowFlows, total(func(sh *shadowShard) uint64 { return sh.results[r].Load() }), s.name, name)
	}
	for way, name := range shadowBytesNames {
		c.counter(ch, metricShadowBytes, total(func(sh *shadowShard) uint64 { return sh.bytes[way].Load() }), s.name, name)
	}
	c.counter(ch, metricShadowMismatch, total(func(sh *shadowShard) uint64 { return sh.mismatch.Load() }), s.name)
	c.gauge(ch, metricShadowActive, float64(s.shadows()), s.name)
}

// copies sums up the counters of a service's shadow.
func (s *serviceStats) copies() ShadowStatus {
	c := ShadowStatus{Active: s.shadows()}
	for _, sh := range s.shards {
		for r := range sh.shadow.results {
			n := sh.shadow.results[r].Load()
			c.Total += n
			switch shadowResult(r) {
			case shadowOK, shadowCut, shadowOff:
			default:
				c.Failed += n
			}
		}
		c.Mismatches += sh.shadow.mismatch.Load()
		c.Sent += sh.shadow.bytes[0].Load()
	}
	return c
}

// shadows is the number of copies there are now.
func (s *serviceStats) shadows() int64 {
	return int64(s.total(func(sh *shard) uint64 { return uint64(sh.shadow.active.Load()) }))
}
