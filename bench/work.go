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
}

var (
	exchangeService = service{"exchange", 8080}
	sinkService     = service{"sink", 8081}
	sourceService   = service{"source", 8082}

	services = []service{exchangeService, sinkService, sourceService}
)

// work is what the clients do.
type work struct {
	name    string
	mode    load.Mode
	service service
	flows   int // of mode Idle: options.idleFlows
}

func allWorks() []work {
	return []work{
		{"tcp_bulk_up", load.Up, sinkService, 8},
		{"tcp_bulk_down", load.Down, sourceService, 8},
		{"tcp_keepalive_64", load.KeepAlive, exchangeService, 64},
		{"tcp_keepalive_1", load.KeepAlive, exchangeService, 1},
		{"tcp_connect_64", load.Connect, exchangeService, 64},
		{"tcp_idle_3000", load.Idle, exchangeService, idleFlows},
	}
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
	metricCPU        = "cpu"          // of the proxy, per unit of work
	metricSoftirqd   = "softirqd_cpu" // of ksoftirqd on the proxy's processor, per unit of work
	metricBusy       = "cpu_busy"     // of the proxy, as a share of the time
	metricOthers     = "others_cpu"   // of others on the proxy's processor, as a share of the time
	metricP50        = "p50"
	metricP99        = "p99"
	metricMemory     = "memory" // per idle connection
	metricFDs        = "fds"    // per idle connection
)

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
	switch w.mode {
	case load.Up, load.Down:
		units, perUnit, scale = float64(c.bytes)/1e9, "s/GB", 1e-9
		out = append(out, sample{metricThroughput, float64(c.bytes) * 8 / 1e9 / c.seconds, "Gbit/s"})
	case load.Connect:
		perUnit = "us/connection"
		out = append(out, sample{metricThroughput, units / c.seconds, "connections/s"})
	case load.KeepAlive, load.Idle:
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
