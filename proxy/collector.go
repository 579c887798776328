package proxy

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/tproxyd/tproxyd/internal/health"
)

// The metrics' names.
const (
	metricConnections       = "tproxyd_connections_total"
	metricActive            = "tproxyd_connections_active"
	metricClosed            = "tproxyd_connections_closed_total"
	metricRejected          = "tproxyd_connections_rejected_total"
	metricBytes             = "tproxyd_bytes_total"
	metricDuration          = "tproxyd_connection_duration_seconds"
	metricConflicts         = "tproxyd_source_conflicts_total"
	metricBackendTries      = "tproxyd_backend_connections_total"
	metricBackendWeight     = "tproxyd_backend_weight"
	metricBackendUp         = "tproxyd_backend_up"
	metricBackendState      = "tproxyd_backend_state"
	metricBackendQueue      = "tproxyd_backend_queue_length"
	metricQueue             = "tproxyd_queue_length"
	metricQueueWait         = "tproxyd_queue_wait_seconds"
	metricEjections         = "tproxyd_ejections_total"
	metricUnlimited         = "tproxyd_admission_unlimited_total"
	metricLegRTT            = "tproxyd_leg_rtt_seconds"
	metricLegRetransmits    = "tproxyd_leg_retransmits_total"
	metricBackendActive     = "tproxyd_backend_connections_active"
	metricBackendConnect    = "tproxyd_backend_connect_seconds"
	metricPauses            = "tproxyd_accept_pauses_total"
	metricPaused            = "tproxyd_worker_accept_paused"
	metricWorkerConnections = "tproxyd_worker_connections"
	metricPipes             = "tproxyd_pipes"
	metricBuffers           = "tproxyd_relay_buffer_bytes"
	metricMaxConnections    = "tproxyd_max_connections"
	metricMaxFlows          = "tproxyd_udp_max_flows"
	metricDescriptors       = "tproxyd_max_descriptors"

	metricFlowsActive  = "tproxyd_udp_flows_active"
	metricFlows        = "tproxyd_udp_flows_total"
	metricFlowsClosed  = "tproxyd_udp_flows_closed_total"
	metricFlowsEvicted = "tproxyd_udp_flows_evicted_total"
	metricFlowDuration = "tproxyd_udp_flow_duration_seconds"
	metricDatagrams    = "tproxyd_datagrams_total"
	metricDropped      = "tproxyd_udp_dropped_total"
	metricSegmented    = "tproxyd_udp_gso_datagrams_total"
	metricOffload      = "tproxyd_udp_offload_supported"
	metricRefusedRuns  = "tproxyd_udp_gso_refused_total"
)

// Collector reads the counters of a Proxy at each scrape.
type Collector struct {
	proxy *Proxy
	descs map[string]*prometheus.Desc
}

// NewCollector returns the collector of p.
func NewCollector(p *Proxy) *Collector {
	c := &Collector{proxy: p, descs: map[string]*prometheus.Desc{}}
	for _, m := range []struct {
		name, help string
		labels     []string
	}{
		{metricConnections, "Connections accepted.", []string{"service"}},
		{metricActive, "Connections now open.", []string{"service"}},
		{metricClosed, "Connections ended, by the reason.", []string{"service", "reason"}},
		{metricRejected, "Connections ended before they had an upstream, for a cause of the proxy's own. They count as closed too.", []string{"service", "reason"}},
		{metricBytes, "Payload bytes relayed. Direction in is from the client to the upstream; path tells whether they were copied, spliced or came as datagrams.", []string{"service", "direction", "path"}},
		{metricDuration, "Time from accept to end of a connection.", []string{"service"}},
		{metricConflicts, "Connections and UDP flows whose source address and port were in use towards the backend.", []string{"service"}},
		{metricBackendTries, "Tries to connect to a backend, by the result. Of UDP flows: ok is a first reply, timeout the end without one.", []string{"service", "backend", "result"}},
		{metricBackendWeight, "Weight of a backend among those of its pool, 0 to 256, as configured or set at run time.", []string{"service", "backend"}},
		{metricBackendUp, "Whether a backend gets new flows as a matter of course (1) or not (0).", []string{"service", "backend"}},
		{metricBackendState, "The state of a backend: 1 for the one it is in, 0 for the others.", []string{"service", "backend", "state"}},
		{metricBackendQueue, "Connections that wait for room at one of the backends of its pool. Each counts for all of these.", []string{"service", "backend"}},
		{metricQueue, "Connections that wait for a backend with room.", []string{"service"}},
		{metricQueueWait, "Time that connections waited for a backend with room, of those that got one.", []string{"service"}},
		{metricEjections, "Ejections of a backend for failures of its flows, by the last of them.", []string{"service", "backend", "reason"}},
		{metricUnlimited, "Flows admitted without the limits per client, as max_clients were remembered already.", []string{"service"}},
		{metricLegRTT, "Smoothed round-trip time of connections at their end, by the leg. Without access records, of all that lived for a second or carried 64 KiB, and of one in 16 of the others.", []string{"service", "leg"}},
		{metricLegRetransmits, "TCP segments that were sent again, by the leg, of the same connections as tproxyd_leg_rtt_seconds.", []string{"service", "leg"}},
		{metricBackendActive, "Connections and UDP flows open to a backend, or being opened.", []string{"service", "backend"}},
		{metricBackendConnect, "Time of successful connects to a backend, and of UDP flows to the first reply.", []string{"service", "backend"}},
		{metricPauses, "Pauses of accepting connections, by the reason.", []string{"reason"}},
		{metricPaused, "Whether a worker has paused accepting (1) or not (0).", []string{"worker"}},
		{metricWorkerConnections, "Connections now open, by worker.", []string{"worker"}},
		{metricPipes, "Kernel pipes for splice, by state.", []string{"state"}},
		{metricBuffers, "User memory that holds bytes which were read and could not be written yet.", nil},
		{metricFlowsActive, "UDP flows there are now.", []string{"service"}},
		{metricFlows, "UDP flows begun.", []string{"service"}},
		{metricFlowsClosed, "UDP flows ended, by the reason.", []string{"service", "reason"}},
		{metricFlowsEvicted, "UDP flows ended to make room for new ones, by the limit that was reached. They count as closed too.", []string{"service", "reason"}},
		{metricFlowDuration, "Time from the first datagram to the end of a UDP flow.", []string{"service"}},
		{metricDatagrams, "Datagrams passed on. Direction in is from the client to the upstream.", []string{"service", "direction"}},
		{metricDropped, "Datagrams not passed on, by the reason. A run of datagrams lost in a receive queue counts as one.", []string{"service", "reason"}},
		{metricSegmented, "Datagrams that left several to a send, by UDP_SEGMENT.", []string{"service", "direction"}},
		{metricOffload, "Whether the kernel has UDP_SEGMENT (gso) and UDP_GRO (gro): 1 or 0.", []string{"offload"}},
		{metricRefusedRuns, "UDP_SEGMENT sends that the kernel or a device refused; their datagrams were sent singly.", nil},
		{metricShadowFlows, "Copies of flows that ended, by the result.", []string{"service", "result"}},
		{metricShadowActive, "Copies of flows there are now.", []string{"service"}},
		{metricShadowBytes, "Bytes sent to the shadow, and received from it and thrown away.", []string{"service", "direction"}},
		{metricShadowMismatch, "Copies that ended well and were answered otherwise than their flow.", []string{"service"}},
		{metricMaxFlows, "UDP flows that the process has at most.", nil},
		{metricMaxConnections, "Connections that the process accepts at most.", nil},
		{metricDescriptors, "RLIMIT_NOFILE in force.", nil},
	} {
		c.descs[m.name] = prometheus.NewDesc(m.name, m.help, m.labels, nil)
	}
	return c
}

// Describe implements prometheus.Collector.
func (c *Collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range c.descs {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c *Collector) Collect(ch chan<- prometheus.Metric) {
	for _, s := range c.proxy.view.Load().stats {
		c.service(ch, s)
		for name, b := range s.snapshot() {
			c.backend(ch, s.name, name, b)
		}
	}
	for _, svc := range c.proxy.view.Load().services {
		c.states(ch, svc)
	}
	c.workers(ch)
	c.offload(ch)
	l := c.proxy.Limits()
	c.gauge(ch, metricMaxFlows, float64(l.MaxFlows))
	c.gauge(ch, metricMaxConnections, float64(l.MaxConnections))
	c.gauge(ch, metricDescriptors, float64(l.Descriptors))
}

func (c *Collector) counter(ch chan<- prometheus.Metric, name string, v uint64, labels ...string) {
	ch <- prometheus.MustNewConstMetric(c.descs[name], prometheus.CounterValue, float64(v), labels...)
}

func (c *Collector) gauge(ch chan<- prometheus.Metric, name string, v float64, labels ...string) {
	ch <- prometheus.MustNewConstMetric(c.descs[name], prometheus.GaugeValue, v, labels...)
}

func (c *Collector) service(ch chan<- prometheus.Metric, s *serviceStats) {
	c.counter(ch, metricConflicts, s.total(func(sh *shard) uint64 { return sh.conflicts.Load() }), s.name)
	c.counter(ch, metricUnlimited, s.total(func(sh *shard) uint64 { return sh.unlimited.Load() }), s.name)
	if s.shadowed.Load() {
		c.shadow(ch, s)
	}
	if s.seen[UDP].Load() {
		c.udp(ch, s)
	}
	if !s.seen[TCP].Load() {
		return
	}
	// What is read first is behind what is read later: ended flows are never
	// more than accepted ones.
	for r := range reasonCount {
		n := s.total(func(sh *shard) uint64 { return sh.closed[r].Load() })
		if n > 0 || r == ClientClose || r == UpstreamClose {
			c.counter(ch, metricClosed, n, s.name, r.String())
		}
		if r.Rejected() {
			c.counter(ch, metricRejected, n, s.name, r.String())
		}
	}
	c.gauge(ch, metricActive, float64(s.active.Load()), s.name)
	c.counter(ch, metricConnections, s.total(func(sh *shard) uint64 { return sh.accepted.Load() }), s.name)
	for side, direction := range directionNames {
		for path, name := range pathNames {
			c.counter(ch, metricBytes, s.total(func(sh *shard) uint64 { return sh.bytes[side][path].Load() }), s.name, direction, name)
		}
	}
	c.gauge(ch, metricQueue, float64(s.queued.Load()), s.name)
	c.shards(ch, metricDuration, s, func(sh *shard) *histogram { return &sh.duration }, s.name)
	c.shards(ch, metricQueueWait, s, func(sh *shard) *histogram { return &sh.queueWait }, s.name)
	for side, leg := range legNames {
		c.counter(ch, metricLegRetransmits, s.total(func(sh *shard) uint64 { return sh.legs[side].retransmits.Load() }), s.name, leg)
		c.shards(ch, metricLegRTT, s, func(sh *shard) *histogram { return &sh.legs[side].rtt }, s.name, leg)
	}
}

// shards adds up the histograms that the workers have of s.
func (c *Collector) shards(ch chan<- prometheus.Metric, name string, s *serviceStats, of func(*shard) *histogram, labels ...string) {
	hs := make([]*histogram, len(s.shards))
	for i, sh := range s.shards {
		hs[i] = of(sh)
	}
	c.histogram(ch, name, hs, labels...)
}

// states shows what becomes of the backends of svc.
func (c *Collector) states(ch chan<- prometheus.Metric, svc *service) {
	states := c.proxy.governor.health(svc.Name)
	if len(states) != len(svc.Backends) {
		return // a reload is at work: it shows them next time
	}
	for i, b := range svc.Backends {
		up := 0.0
		if states[i].State.Serves() {
			up = 1
		}
		c.gauge(ch, metricBackendUp, up, svc.Name, b.Name)
		c.gauge(ch, metricBackendWeight, float64(states[i].Weight), svc.Name, b.Name)
		for state := range health.StateCount {
			is := 0.0
			if state == states[i].State {
				is = 1
			}
			c.gauge(ch, metricBackendState, is, svc.Name, b.Name, state.String())
		}
		totals := svc.stats.backend(b.Name)
		for kind := failureNone + 1; kind < failureCount; kind++ {
			c.counter(ch, metricEjections, totals.ejections[kind].Load(), svc.Name, b.Name, failureNames[kind])
		}
		if svc.Protocol == TCP {
			c.gauge(ch, metricBackendQueue, float64(svc.waitingFor(b)), svc.Name, b.Name)
		}
	}
}

func (c *Collector) backend(ch chan<- prometheus.Metric, service, name string, b *backendTotals) {
	var active int64
	var results [resultCount]uint64
	hs := make([]*histogram, len(b.shards))
	for i, sh := range b.shards {
		active += sh.active.Load()
		for r := range results {
			results[r] += sh.results[r].Load()
		}
		hs[i] = &sh.connect
	}
	c.gauge(ch, metricBackendActive, float64(active), service, name)
	for r, n := range results {
		c.counter(ch, metricBackendTries, n, service, name, resultNames[r])
	}
	c.histogram(ch, metricBackendConnect, hs, service, name)
}

// histogram adds up hs, which have the same bounds.
func (c *Collector) histogram(ch chan<- prometheus.Metric, name string, hs []*histogram, labels ...string) {
	buckets := map[float64]uint64{}
	var count uint64
	for i, bound := range hs[0].bounds {
		for _, h := range hs {
			count += h.counts[i].Load()
		}
		buckets[bound.Seconds()] = count
	}
	var sum int64
	for _, h := range hs {
		count += h.counts[len(h.bounds)].Load()
		sum += h.sum.Load()
	}
	ch <- prometheus.MustNewConstHistogram(c.descs[name], count, time.Duration(sum).Seconds(), buckets, labels...)
}

func (c *Collector) workers(ch chan<- prometheus.Metric) {
	var pauses [pauseCount]uint64
	var idle, lent, buffers int64
	for _, w := range c.proxy.workers {
		for r := range pauses {
			pauses[r] += w.stats.pauses[r].Load()
		}
		idle += w.stats.pipesIdle.Load()
		lent += w.stats.pipesLent.Load()
		buffers += w.stats.bufferBytes.Load()
		paused := 0.0
		if w.stats.paused.Load() {
			paused = 1
		}
		id := strconv.Itoa(w.id)
		c.gauge(ch, metricPaused, paused, id)
		c.gauge(ch, metricWorkerConnections, float64(w.stats.flows.Load()), id)
	}
	for r, n := range pauses {
		c.counter(ch, metricPauses, n, pauseNames[r])
	}
	c.gauge(ch, metricPipes, float64(idle), "idle")
	c.gauge(ch, metricPipes, float64(lent), "lent")
	c.gauge(ch, metricBuffers, float64(buffers))
}
