package main

import "math"

// target is a figure that tproxyd has to stay at or below: a ratio to a peer's,
// or without a peer the figure itself. Where beyond is above reach it has to
// stay at or above them.
type target struct {
	work   string
	metric string
	peer   string
	reach  float64
	beyond float64
}

func (t target) atLeast() bool { return t.beyond > t.reach }

func targets() []target {
	return []target{
		{"tcp_bulk_up", metricCPU, theHAProxy, 0.80, 0.60},
		{"tcp_bulk_down", metricCPU, theHAProxy, 0.80, 0.60},
		{"tcp_keepalive_64", metricCPU, theHAProxy, 0.85, 0.70},
		{"tcp_connect_64", metricCPU, theHAProxy, 1.00, 0.80},
		{"tcp_connect_64", metricCPU, theGoCopy, 0.70, 0.60},
		{"tcp_idle_3000", metricMemory, theHAProxy, 0.25, 0.10},
		{"tcp_idle_3000", metricFDs, "", 2, 2},
		{"udp_gso_1", metricCPU, theNginx, 0.25, 0.15},
		{"udp_gso_100", metricCPU, theNginx, 0.25, 0.15},
		{"udp_small_1", metricCPU, theNginx, 0.95, 0.80},
		{"udp_small_1000", metricCPU, theNginx, 0.95, 0.80},
		{"udp_dns_1000", metricCPU, theNginx, 0.80, 0.60},
		{"udp_gso_1", metricMaxRate, theNginx, 3, 5},
	}
}

// measured finds the figure that the target is about.
func (t target) measured(r *report) (value float64, ok bool) {
	if t.peer == "" {
		for _, res := range r.Results {
			if res.Work == t.work && res.Metric == t.metric && res.Subject == ours {
				return res.Median, true
			}
		}
		return 0, false
	}
	for _, ra := range r.Ratios {
		if ra.Work == t.work && ra.Metric == t.metric && ra.Peer == t.peer {
			return ra.Ratio, true
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
