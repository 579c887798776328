package main

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/tproxyd/tproxyd/bench/load"
)

// evenly is a run of a second in which n datagrams were sent and got of them
// arrived, the last one so many seconds after it was sent. Answers took 40 ms.
func evenly(rate float64, n, got uint64, late float64) outcome {
	const delay = 40 * time.Millisecond
	return outcome{
		rate: rate, seconds: 1, delay: delay,
		sent:     load.DatagramReport{Sent: n, FirstSentNS: 5e9, LastSentNS: 6e9},
		received: load.DatagramReport{Received: got, FirstReceivedNS: 6e9, LastReceivedNS: 6e9 + int64(delay) + int64(late*1e9)},
	}
}

func TestOutcome(t *testing.T) {
	for _, tt := range []struct {
		name string
		o    outcome
		loss float64
		good bool
	}{
		{"all", evenly(1e5, 1e5, 1e5, 0), 0, true},
		{"a few lost", evenly(1e5, 1e5, 1e5-10, 0), 1e-4, true},
		{"some lost", evenly(1e5, 1e5, 1e5-11, 0), 1.1e-4, false},
		{"all lost", evenly(1e5, 1e5, 0, 0), 1, false},
		{"late", evenly(1e5, 1e5, 1e5, 0.06), 0, false},
		{"a little late", evenly(1e5, 1e5, 1e5, 0.04), 0, true},
		{"not all sent", evenly(1e5, 8e4, 8e4, 0), 0, false},
		{"slow and late", evenly(slowRate, 3000, 3000, 1), 0, true},
		{"slow with loss", evenly(slowRate, 3000, 2999, 0), 1. / 3000, false},
		{"nothing sent", evenly(1000, 0, 0, 0), 1, false},
		{"more received than sent", evenly(1e5, 1e5, 1e5+1, 0), 1, false},
	} {
		if got := tt.o.loss(); !cmp.Equal(got, tt.loss, cmpopts.EquateApprox(1e-9, 0)) || tt.o.good() != tt.good {
			t.Errorf("%s: loss %v, good %t, want %v, %t", tt.name, got, tt.o.good(), tt.loss, tt.good)
		}
	}
	// In a short run a moment is not a queue.
	short := evenly(1e5, 1e5, 1e5, 0.020)
	short.sent.FirstSentNS = short.sent.LastSentNS - 10e6
	if !short.good() {
		t.Error("20 ms count as a queue")
	}
	if o := (outcome{received: load.DatagramReport{Received: 200, Reordered: 3}}); o.reordered() != 0.015 {
		t.Errorf("reordered = %v, want 0.015", o.reordered())
	}
}

func TestRates(t *testing.T) {
	r := rates{}
	if got := r.common("w"); got != 0 {
		t.Errorf("common rate of nobody = %v, want 0", got)
	}
	r.set("w", "nginx", 100_000)
	r.set("w", "tproxyd", 400_000)
	r.set("other", "nginx", 10)
	if got := r.common("w"); got != 70_000 {
		t.Errorf("common rate = %v, want 70000, 70 %% of the slowest", got)
	}
}

func TestDatagramSamples(t *testing.T) {
	c := counted{seconds: 2, operations: 200_000, cpuNS: 1e9, softirqdNS: 1e6, othersNS: 5e8, cpuSeconds: 2}
	for _, tt := range []struct {
		ask  bool
		want []sample
	}{
		{false, []sample{{"throughput", 100_000, "datagrams/s"}, {"cpu", 5, "us/datagram"}, {"softirqd_cpu", 0.005, "us/datagram"}, {"cpu_busy", 0.5, "share"}, {"others_cpu", 0.25, "share"}}},
		{true, []sample{{"throughput", 100_000, "requests/s"}, {"cpu", 5, "us/request"}, {"softirqd_cpu", 0.005, "us/request"}, {"cpu_busy", 0.5, "share"}, {"others_cpu", 0.25, "share"}}},
	} {
		got := work{udp: &datagramShape{ask: tt.ask}}.samples(c, true)
		if diff := cmp.Diff(tt.want, got, cmp.AllowUnexported(sample{}), cmpopts.EquateApprox(1e-9, 0)); diff != "" {
			t.Errorf("ask %t: samples (-want +got):\n%s", tt.ask, diff)
		}
	}
}
