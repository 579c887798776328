package main

import (
	"cmp"
	"math"
)

// target is a figure that tproxyd has to stay at or below: a ratio to a peer's,
// or without a peer the figure itself. Where beyond is above reach it has to
// stay at or above them.
type target struct {
	work    string
	metric  string
	peer    string
	reach   float64
	beyond  float64
	subject string // whose figure it is; empty: ours
}

// against is whom it is about, besides us.
func (t target) against() string {
	if t.subject != "" && t.peer != "" {
		return t.peer + ", " + t.subject
	}
	return cmp.Or(t.peer, t.subject)
}

func (t target) atLeast() bool { return t.beyond > t.reach }

// fullWorks are those at which checks, lists and Maglev may cost 3 %.
var fullWorks = []string{"tcp_bulk_up", "tcp_keepalive_64", "tcp_connect_64", "udp_gso_100", "udp_small_1000"}

func targets() []target {
	list := []target{
		{work: "tcp_bulk_up", metric: metricCPU, peer: theHAProxy, reach: 0.80, beyond: 0.60},
		{work: "tcp_bulk_down", metric: metricCPU, peer: theHAProxy, reach: 0.80, beyond: 0.60},
		{work: "tcp_keepalive_64", metric: metricCPU, peer: theHAProxy, reach: 0.85, beyond: 0.70},
		{work: "tcp_connect_64", metric: metricCPU, peer: theHAProxy, reach: 1.00, beyond: 0.80},
		{work: "tcp_connect_64", metric: metricCPU, peer: theGoCopy, reach: 0.70, beyond: 0.60},
		{work: "tcp_idle_3000", metric: metricMemory, peer: theHAProxy, reach: 0.25, beyond: 0.10},
		{work: "tcp_idle_3000", metric: metricFDs, reach: 2, beyond: 2},
		{work: "udp_gso_1", metric: metricCPU, peer: theNginx, reach: 0.25, beyond: 0.15},
		{work: "udp_gso_100", metric: metricCPU, peer: theNginx, reach: 0.25, beyond: 0.15},
		{work: "udp_small_1", metric: metricCPU, peer: theNginx, reach: 0.95, beyond: 0.80},
		{work: "udp_small_1000", metric: metricCPU, peer: theNginx, reach: 0.95, beyond: 0.80},
		{work: "udp_dns_1000", metric: metricCPU, peer: theNginx, reach: 0.80, beyond: 0.60},
		{work: "udp_gso_1", metric: metricMaxRate, peer: theNginx, reach: 3, beyond: 5},
		{work: "shadow_cost", metric: metricThroughput, peer: theShadow, reach: 1.25, beyond: 1.11}, // 0.8 and 0.9 of it
		{work: "tcp_bulk_up", metric: metricThroughput, peer: theTap, reach: 1.053, beyond: 1.02},   // 0.95 and 0.98 of it
		{work: "health_200", metric: metricCPU, subject: theFull, reach: 2, beyond: 1},
	}
	list = append(list, frameTargets()...)
	for _, name := range fullWorks {
		list = append(list, target{work: name, metric: metricCPU, peer: theFull, reach: 0.97, beyond: 1})
	}
	return list
}

func frameTargets() []target {
	return []target{
		{work: "tap_64", metric: metricCPU, peer: theTcpdump, reach: 0.50, beyond: 0.28},
		{work: "tap_64", metric: metricCPU, peer: theNetsniff, reach: 1.00, beyond: 0.70},
		{work: "tap_gso", metric: metricCPU, peer: theTcpdump, reach: 0.40, beyond: 0.28},
		{work: "tap_gso", metric: metricLoss, peer: theTcpdump, reach: 0.33, beyond: 0},
		{work: "tap_recorder", metric: metricCPU, reach: 20, beyond: 10},
		{work: "tap_parse", metric: metricCPU, reach: 5, beyond: 2.4},
		{work: "tap_parse", metric: metricMallocs, reach: 0, beyond: 0},
		{work: "send_64", metric: metricPerCPU, peer: theTrafgen, reach: 1.05, beyond: 1.15},
		{work: "send_64", metric: metricPerCPU, peer: theTcpreplay, reach: 1.05, beyond: 1.15},
		{work: "send_64_ifb", metric: metricPerCPU, peer: theSendTo, reach: 1.40, beyond: 1.50, subject: theRing},
		{work: "send_gso", metric: metricPerCPU, peer: theTcpreplay, reach: 20, beyond: 40},
	}
}

// measured finds the figure that the target is about.
func (t target) measured(r *report) (value float64, ok bool) {
	for _, ra := range r.Ratios {
		if t.subject == "" && ra.Work == t.work && ra.Metric == t.metric && ra.Peer == t.peer {
			return ra.Ratio, true
		}
	}
	// That of another subject, or of a metric that has no ratio in the report.
	value, ok = r.median(t.work, cmp.Or(t.subject, ours), t.metric)
	if !ok || t.peer == "" {
		return value, ok
	}
	peer, ok := r.median(t.work, t.peer, t.metric)
	return value / peer, ok && peer != 0
}

func (r *report) median(work, subject, metric string) (float64, bool) {
	for _, res := range r.Results {
		if res.Work == work && res.Subject == subject && res.Metric == metric {
			return res.Median, true
		}
	}
	return 0, false
}

// verdict compares at the precision of the targets, two decimals.
func (t target) verdict(value float64) string {
	value = math.Round(value*100) / 100
	reach, beyond := t.reach, t.beyond
	if t.atLeast() {
		value, reach, beyond = -value, -reach, -beyond
	}
	switch {
	case value <= beyond && beyond < reach:
		return "beyond"
	case value <= reach:
		return "reached"
	}
	return "NOT REACHED"
}
