package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/tproxyd/tproxyd/bench/load"
)

// idleFlows is how many connections rest in tcp_idle_3000.
const idleFlows = 3000

// service is one port of the virtual address and of the backend.
type service struct {
	name string
	port uint16
	// responses end a flow, if not 0. Of UDP only.
	responses int
}

var (
	exchangeService = service{name: "exchange", port: 8080}
	sinkService     = service{name: "sink", port: 8081}
	sourceService   = service{name: "source", port: 8082}
	// Those of UDP.
	datagramService = service{name: "datagrams", port: 8090}
	queryService    = service{name: "queries", port: 8053, responses: 1}

	tcpServices = []service{exchangeService, sinkService, sourceService}
	udpServices = []service{datagramService, queryService}
)

// work is what the clients do.
type work struct {
	name    string
	mode    load.Mode // of TCP only
	service service
	flows   int            // of mode Idle: options.idleFlows
	udp     *datagramShape // nil: TCP
	shadow  bool           // flows are copied by the subject that does that
	checks  bool           // no clients: only health checks

	// Works without a proxy.
	tap   *tapShape
	send  *sendShape
	parse bool
}

// datagramShape is what the datagrams of a work look like.
type datagramShape struct {
	size  int
	burst int     // datagrams in one UDP_SEGMENT send; 1: without
	ask   bool    // each from another source, and answered
	guess float64 // a rate that any proxy should do; the first search begins there
}

func allWorks() []work {
	// As many as fit: what a sender does that has much to send.
	run := &datagramShape{size: 1200, burst: load.MaxDatagram / 1200, guess: 100_000}
	small := &datagramShape{size: 200, burst: 1, guess: 50_000}
	query := &datagramShape{size: 100, burst: 1, ask: true, guess: 10_000}
	list := []work{
		{name: "tcp_bulk_up", mode: load.Up, service: sinkService, flows: 8},
		{name: "tcp_bulk_down", mode: load.Down, service: sourceService, flows: 8},
		{name: "tcp_keepalive_64", mode: load.KeepAlive, service: exchangeService, flows: 64},
		{name: "tcp_keepalive_1", mode: load.KeepAlive, service: exchangeService, flows: 1},
		{name: "tcp_connect_64", mode: load.Connect, service: exchangeService, flows: 64},
		{name: "tcp_idle_3000", mode: load.Idle, service: exchangeService, flows: idleFlows},
		{name: "udp_gso_1", service: datagramService, flows: 1, udp: run},
		{name: "udp_gso_100", service: datagramService, flows: 100, udp: run},
		{name: "udp_small_1", service: datagramService, flows: 1, udp: small},
		{name: "udp_small_1000", service: datagramService, flows: 1000, udp: small},
		{name: "udp_dns_1000", service: queryService, flows: queriesInFlight, udp: query},
		{name: "shadow_cost", mode: load.Up, service: sinkService, flows: 8, shadow: true},
		{name: "health_200", service: exchangeService, checks: true},
	}
	return append(list, frameWorks()...)
}

// frameWorks are those of the tap and of sending frames. The rates are what a
// generator that shares the machine can keep up; tap_gso is 20 Gbit/s.
func frameWorks() []work {
	small, full := frameShape{size: 64, segments: 1}, frameShape{size: 1514, segments: 1}
	super := frameShape{size: 1514, segments: 44}
	return []work{
		{name: "tap_64", tap: &tapShape{small, 400_000, encodeCopy, 4 << 20}},
		{name: "tap_1514", tap: &tapShape{full, 250_000, encodeCopy, 32 << 20}},
		{name: "tap_gso", tap: &tapShape{super, 20e9 / 8 / float64(super.bytes()), encodeInPlace, 128 << 20}},
		{name: "tap_recorder", tap: &tapShape{small, 400_000, recordOnly, 0}},
		{name: "tap_parse", parse: true},
		{name: "send_64", send: &sendShape{frameShape: small}},
		{name: "send_1514", send: &sendShape{frameShape: full}},
		{name: "send_gso", send: &sendShape{frameShape: super}},
		{name: "send_64_ifb", send: &sendShape{frameShape: small, ifb: true}},
	}
}

// services are those that a proxy offers for the work.
func (w work) services() []service {
	switch {
	case w.udp != nil:
		return udpServices
	case w.checks:
		return []service{w.service}
	}
	return tcpServices
}

func workNames() []string {
	var names []string
	for _, w := range allWorks() {
		names = append(names, w.name)
	}
	return names
}

func workByName(name string) (work, error) {
	all := allWorks()
	i := slices.IndexFunc(all, func(w work) bool { return w.name == name })
	if i < 0 {
		return work{}, fmt.Errorf("no work %q: there are %s", name, strings.Join(workNames(), ", "))
	}
	return all[i], nil
}

// The metrics.
const (
	metricThroughput = "throughput"
	metricCPU        = "cpu"          // of the proxy, per unit of work; of health_200 per cent of the time
	metricSoftirqd   = "softirqd_cpu" // of ksoftirqd on the proxy's processor, per unit of work
	metricBusy       = "cpu_busy"     // of the proxy, as a share of the time
	metricCopied     = "copied"       // what the shadow got, as a share of what was sent
	metricOthers     = "others_cpu"   // of others on the proxy's processor, as a share of the time
	metricP50        = "p50"
	metricP99        = "p99"
	metricMemory     = "memory" // per idle connection
	metricFDs        = "fds"    // per idle connection

	metricMaxRate   = "max_rate"  // the highest at which no datagram is lost
	metricLoss      = "loss"      // as a share of what was sent
	metricReordered = "reordered" // as a share of what arrived

	metricPerCPU  = "per_cpu" // units of work in a second of processor time
	metricMallocs = "mallocs"
)

// aside are the metrics that only tell how a measurement went.
func aside(metric string) bool {
	switch metric {
	case metricBusy, metricCopied, metricOthers, metricLoss, metricReordered:
		return true
	}
	return false
}

// sample is one figure of one measurement.
type sample struct {
	metric string
	value  float64
	unit   string
}

// counted is what a measurement saw between its beginning and its end.
type counted struct {
	seconds    float64 // by the clock of who counts the units
	operations uint64
	bytes      uint64
	cpuNS      float64 // of the proxy
	softirqdNS float64
	othersNS   float64
	cpuSeconds float64 // the time in which these three were spent
	p50NS      int64
	p99NS      int64
}

// samples turns counts into figures. proxied is false where there is no proxy
// whose time could be told.
func (w work) samples(c counted, proxied bool) []sample {
	var out []sample
	units, perUnit, scale := float64(c.operations), "us/request", 1e-3
	switch {
	case w.udp != nil:
		perUnit = "us/datagram"
		unit := "datagrams/s"
		if w.udp.ask {
			perUnit, unit = "us/request", "requests/s"
		}
		out = append(out, sample{metricThroughput, units / c.seconds, unit})
	case w.mode == load.Up, w.mode == load.Down:
		units, perUnit, scale = float64(c.bytes)/1e9, "s/GB", 1e-9
		out = append(out, sample{metricThroughput, float64(c.bytes) * 8 / 1e9 / c.seconds, "Gbit/s"})
	case w.mode == load.Connect:
		perUnit = "us/connection"
		out = append(out, sample{metricThroughput, units / c.seconds, "connections/s"})
	default:
		out = append(out, sample{metricThroughput, units / c.seconds, "requests/s"})
	}
	if c.p50NS > 0 {
		out = append(out, sample{metricP50, float64(c.p50NS) / 1e3, "us"}, sample{metricP99, float64(c.p99NS) / 1e3, "us"})
	}
	if proxied {
		out = append(out,
			sample{metricCPU, c.cpuNS * scale / units, perUnit},
			sample{metricSoftirqd, c.softirqdNS * scale / units, perUnit},
			sample{metricBusy, c.cpuNS / 1e9 / c.cpuSeconds, "share"},
			sample{metricOthers, c.othersNS / 1e9 / c.cpuSeconds, "share"})
	}
	return out
}
