package proxy

import (
	"github.com/prometheus/client_golang/prometheus"
)

// udp shows the counters of a service's UDP flows.
func (c *Collector) udp(ch chan<- prometheus.Metric, s *serviceStats) {
	total := func(f func(*udpShard) uint64) uint64 {
		return s.total(func(sh *shard) uint64 { return f(&sh.udp) })
	}
	// As for TCP, ended flows are read first and so never more than begun ones.
	for r := range reasonCount {
		if n := total(func(u *udpShard) uint64 { return u.closed[r].Load() }); n > 0 || r == IdleTimeout {
			c.counter(ch, metricFlowsClosed, n, s.name, r.String())
		}
	}
	for e, name := range evictionNames {
		c.counter(ch, metricFlowsEvicted, total(func(u *udpShard) uint64 { return u.evicted[e].Load() }), s.name, name)
	}
	c.gauge(ch, metricFlowsActive, float64(s.flows.Load()), s.name)
	c.counter(ch, metricFlows, total(func(u *udpShard) uint64 { return u.flows.Load() }), s.name)
	for side, direction := range directionNames {
		c.counter(ch, metricDatagrams, total(func(u *udpShard) uint64 { return u.datagrams[side].Load() }), s.name, direction)
		c.counter(ch, metricBytes, total(func(u *udpShard) uint64 { return u.bytes[side].Load() }), s.name, direction, pathDatagram)
		c.counter(ch, metricSegmented, total(func(u *udpShard) uint64 { return u.segmented[side].Load() }), s.name, direction)
	}
	for d := dropNone + 1; d < dropCount; d++ {
		c.counter(ch, metricDropped, total(func(u *udpShard) uint64 { return u.dropped[d].Load() }), s.name, dropNames[d])
	}
	c.shards(ch, metricFlowDuration, s, func(sh *shard) *histogram { return &sh.udp.duration }, s.name)
}

// offload shows what the kernel can do for UDP.
func (c *Collector) offload(ch chan<- prometheus.Metric) {
	value := map[bool]float64{true: 1}
	c.gauge(ch, metricOffload, value[c.proxy.gso], "gso")
	c.gauge(ch, metricOffload, value[c.proxy.gro], "gro")
	var refused uint64
	for _, w := range c.proxy.workers {
		refused += w.stats.refusedRuns.Load()
	}
	c.counter(ch, metricRefusedRuns, refused)
}
