package main

import (
	"bytes"
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/tproxyd/tproxyd/bench/load"
)

func TestMedian(t *testing.T) {
	for _, tt := range []struct {
		in   []float64
		want float64
	}{
		{[]float64{7}, 7},
		{[]float64{9, 1, 5}, 5},
		{[]float64{4, 1, 3, 2}, 2.5},
		{[]float64{2, 2, 100, 2, 2}, 2},
	} {
		before := append([]float64(nil), tt.in...)
		if got := median(tt.in); got != tt.want {
			t.Errorf("median(%v) = %v, want %v", tt.in, got, tt.want)
		}
		if diff := cmp.Diff(before, tt.in); diff != "" {
			t.Errorf("median changed its argument: %s", diff)
		}
	}
}

// Two rounds, in the second of which the order is another one and a peer failed.
func TestResultsAndRatios(t *testing.T) {
	c := newCollector()
	c.add("w1", "haproxy", []sample{{"cpu", 20, "us"}, {"p50", 0, "us"}, {"loss", 0.5, "share"}})
	c.add("w1", "tproxyd", []sample{{"cpu", 10, "us"}, {"p50", 3, "us"}, {"loss", 0.25, "share"}})
	c.add("w1", "direct", []sample{{"p50", 1, "us"}})
	c.add("w2", "haproxy", []sample{{"cpu", 8, "us"}, {"others_cpu", 0.5, "share"}})
	c.add("w2", "tproxyd", []sample{{"others_cpu", 0.25, "share"}})
	c.add("w1", "tproxyd", []sample{{"cpu", 16, "us"}, {"p50", 5, "us"}})
	got := c.results([]string{"w1", "w2"}, []string{"tproxyd", "haproxy", "direct"})
	want := []result{
		{"w1", "tproxyd", "cpu", 13, 10, 16, "us"},
		{"w1", "tproxyd", "p50", 4, 3, 5, "us"},
		{"w1", "tproxyd", "loss", 0.25, 0.25, 0.25, "share"},
		{"w1", "haproxy", "cpu", 20, 20, 20, "us"},
		{"w1", "haproxy", "p50", 0, 0, 0, "us"},
		{"w1", "haproxy", "loss", 0.5, 0.5, 0.5, "share"},
		{"w1", "direct", "p50", 1, 1, 1, "us"},
		{"w2", "tproxyd", "others_cpu", 0.25, 0.25, 0.25, "share"},
		{"w2", "haproxy", "cpu", 8, 8, 8, "us"},
		{"w2", "haproxy", "others_cpu", 0.5, 0.5, 0.5, "share"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("results (-want +got):\n%s", diff)
	}
	wantRatios := []ratio{{"w1", "cpu", "haproxy", 0.65}, {"w1", "p50", "direct", 4}}
	if diff := cmp.Diff(wantRatios, ratios(got)); diff != "" {
		t.Errorf("ratios (-want +got):\n%s", diff)
	}
}

func TestEmptyReportIsArrays(t *testing.T) {
	var out bytes.Buffer
	r := &report{Results: newCollector().results(nil, nil), Ratios: ratios(nil)}
	if err := r.writeJSON(&out); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"results": []`, `"ratios": []`} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %s in %s", want, &out)
		}
	}
}

func TestTargets(t *testing.T) {
	reached := target{reach: 0.8, beyond: 0.6}
	exact := target{reach: 2, beyond: 2}
	atLeast := target{reach: 3, beyond: 5}
	for _, tt := range []struct {
		target target
		value  float64
		want   string
	}{
		{reached, 0.60, "beyond"},
		{reached, 0.604, "beyond"},
		{reached, 0.61, "reached"},
		{reached, 0.80, "reached"},
		{reached, 0.81, "NOT REACHED"},
		{exact, 2.0003, "reached"},
		{exact, 2.01, "NOT REACHED"},
		{atLeast, 2.99, "NOT REACHED"},
		{atLeast, 2.996, "reached"},
		{atLeast, 4.99, "reached"},
		{atLeast, 5, "beyond"},
	} {
		if got := tt.target.verdict(tt.value); got != tt.want {
			t.Errorf("verdict of %v against %v/%v = %q, want %q", tt.value, tt.target.reach, tt.target.beyond, got, tt.want)
		}
	}
	r := &report{
		Results: []result{
			{Work: "tcp_idle_3000", Subject: "haproxy", Metric: "fds", Median: 7},
			{Work: "tcp_idle_3000", Subject: ours, Metric: "fds", Median: 2},
			{Work: "health_200", Subject: ours, Metric: "cpu", Median: 9},
			{Work: "health_200", Subject: theFull, Metric: "cpu", Median: 1.5},
		},
		Ratios: []ratio{{"tcp_connect_64", "cpu", "gocopy", 0.5}},
	}
	got := map[string]float64{}
	for _, tg := range targets() {
		if _, err := workByName(tg.work); err != nil {
			t.Error(err)
		}
		if v, ok := tg.measured(r); ok {
			got[tg.work+" "+tg.peer] = v
		}
	}
	if diff := cmp.Diff(map[string]float64{"tcp_connect_64 gocopy": 0.5, "tcp_idle_3000 ": 2, "health_200 ": 1.5}, got); diff != "" {
		t.Errorf("measured targets (-want +got):\n%s", diff)
	}
}

func TestSamples(t *testing.T) {
	c := counted{seconds: 2, operations: 1000, bytes: 4e9, cpuNS: 1e9, softirqdNS: 1e6, othersNS: 5e8, cpuSeconds: 2, p50NS: 1500, p99NS: 2500}
	up := c
	up.operations, up.p50NS, up.p99NS = 0, 0, 0
	for _, tt := range []struct {
		mode    load.Mode
		in      counted
		proxied bool
		want    []sample
	}{
		{load.Up, up, true, []sample{
			{"throughput", 16, "Gbit/s"},
			{"cpu", 0.25, "s/GB"},
			{"softirqd_cpu", 0.00025, "s/GB"},
			{"cpu_busy", 0.5, "share"},
			{"others_cpu", 0.25, "share"},
		}},
		{load.Connect, c, true, []sample{
			{"throughput", 500, "connections/s"},
			{"p50", 1.5, "us"},
			{"p99", 2.5, "us"},
			{"cpu", 1000, "us/connection"},
			{"softirqd_cpu", 1, "us/connection"},
			{"cpu_busy", 0.5, "share"},
			{"others_cpu", 0.25, "share"},
		}},
		{load.KeepAlive, c, false, []sample{{"throughput", 500, "requests/s"}, {"p50", 1.5, "us"}, {"p99", 2.5, "us"}}},
	} {
		got := work{mode: tt.mode}.samples(tt.in, tt.proxied)
		if diff := cmp.Diff(tt.want, got, cmp.AllowUnexported(sample{}), cmpopts.EquateApprox(1e-9, 0)); diff != "" {
			t.Errorf("samples of %s (-want +got):\n%s", tt.mode, diff)
		}
	}
}

func TestWriteText(t *testing.T) {
	r := &report{
		Results: []result{
			{"tcp_connect_64", "tproxyd", "cpu", 91.26, 90, 1234.5, "us/connection"},
			{"tcp_connect_64", "tproxyd", "others_cpu", 0.3, 0.3, 0.3, "share"},
			{"tcp_connect_64", "haproxy", "cpu", 100, 100, 100, "us/connection"},
			{"udp_gso_1", "tproxyd", "max_rate", 400, 400, 400, "datagrams/s"},
			{"udp_gso_1", "nginx", "max_rate", 100, 100, 100, "datagrams/s"},
			{"udp_gso_1", "nginx", "loss", 0.5, 0, 1, "share"},
		},
		Failures: []failure{{"tcp_bulk_up", "nginx", 2, "nginx is not transparent"}},
		Env:      environment{Versions: map[string]string{"haproxy": "2.6"}},
	}
	r.Ratios = ratios(r.Results)
	var out bytes.Buffer
	if err := r.writeText(&out); err != nil {
		t.Fatal(err)
	}
	var lines []string
	for line := range strings.Lines(out.String()) {
		lines = append(lines, strings.Join(strings.Fields(line), " "))
	}
	for _, want := range []string{
		"cpu tproxyd 91.3 90 1234 us/connection",
		"tcp_connect_64 cpu 0.91",
		"tcp_connect_64 cpu haproxy 0.91 <= 1.00 <= 0.80 reached",
		"tcp_connect_64 cpu gocopy - <= 0.70 <= 0.60 not measured",
		"udp_gso_1 max_rate nginx 4.00 >= 3.00 >= 5.00 reached",
		"FAILED: tcp_bulk_up, nginx, round 2: nginx is not transparent",
		"haproxy: 2.6",
	} {
		if !strings.Contains(strings.Join(lines, "\n")+"\n", want+"\n") {
			t.Errorf("no line %q in:\n%s", want, &out)
		}
	}
	if !strings.Contains(out.String(), "NOISY: at 1 works") {
		t.Errorf("no word about the noise in:\n%s", &out)
	}
	if !strings.Contains(out.String(), "LOSSY: at 1 works") {
		t.Errorf("no word about the loss in:\n%s", &out)
	}
}

func TestNumber(t *testing.T) {
	for in, want := range map[float64]string{0: "0", 0.01234: "0.0123", 12.345: "12.3", 999.4: "999", 12345.6: "12346", -2048: "-2048", math.Pi: "3.14"} {
		if got := number(in); got != want {
			t.Errorf("number(%v) = %q, want %q", in, got, want)
		}
	}
}
