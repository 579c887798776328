package healthcheck

import (
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

func TestCollector(t *testing.T) {
	c := New(Options{})
	plain, spoofed := target("plain", closed(t, false)), target("spoofed", closed(t, false))
	c.Set([]Target{plain, spoofed})
	add := func(x Target, o Outcome, d time.Duration, path pathVerdict, ends time.Time) {
		c.runners[x.key()].counts.add(&Result{Outcome: o, Duration: d}, path, ends)
	}
	add(plain, Refused, time.Millisecond, pathUnknown, time.Time{})
	add(plain, Refused, 2*time.Millisecond, pathUnknown, time.Time{})
	add(plain, BadCertificate, time.Minute, pathUnknown, time.Now().Add(-36*time.Hour))
	add(spoofed, OK, 20*time.Millisecond, pathOK, time.Time{})
	add(spoofed, NoReturnPath, time.Second, pathBroken, time.Time{})
	add(spoofed, Timeout, time.Second, pathUnknown, time.Time{})

	reg := prometheus.NewPedanticRegistry()
	reg.MustRegister(NewCollector(c))
	const want = `
# HELP tproxyd_backend_return_path_ok Whether answers to the spoofed source of health checks come back through this host (1) or not (0).
# TYPE tproxyd_backend_return_path_ok gauge
tproxyd_backend_return_path_ok{backend="spoofed",service="s"} 0
# HELP tproxyd_healthcheck_total Health checks made, by the result. Those that end in late or error say nothing about the backend.
# TYPE tproxyd_healthcheck_total counter
tproxyd_healthcheck_total{backend="plain",result="bad_certificate",service="s"} 1
tproxyd_healthcheck_total{backend="plain",result="ok",service="s"} 0
tproxyd_healthcheck_total{backend="plain",result="refused",service="s"} 2
tproxyd_healthcheck_total{backend="spoofed",result="no_return_path",service="s"} 1
tproxyd_healthcheck_total{backend="spoofed",result="ok",service="s"} 1
tproxyd_healthcheck_total{backend="spoofed",result="timeout",service="s"} 1
`
	if err := testutil.GatherAndCompare(reg, strings.NewReader(want), metricChecks, metricReturnPath); err != nil {
		t.Error(err)
	}
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		switch m := f.GetMetric()[0]; f.GetName() {
		case metricDuration:
			h := m.GetHistogram()
			if h.GetSampleCount() != 3 || h.GetBucket()[1].GetCumulativeCount() != 1 || h.GetBucket()[2].GetCumulativeCount() != 2 || h.GetBucket()[len(durationBounds)-1].GetCumulativeCount() != 2 {
				t.Errorf("histogram %v", h)
			}
		case metricCertificate:
			if v := m.GetGauge().GetValue(); v > -1.5 || v < -1.6 || len(f.GetMetric()) != 1 {
				t.Errorf("days left %v", f)
			}
		}
	}
	problems, err := testutil.GatherAndLint(reg)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		if p.Metric == metricCertificate {
			continue // days are what certificates are renewed by
		}
		t.Errorf("promlint: %s: %s", p.Metric, p.Text)
	}

	// What a changed target is counted for stays; what may be different goes.
	spoofed.Mark = 1
	c.Set([]Target{spoofed})
	if n := testutil.CollectAndCount(NewCollector(c), metricReturnPath, metricCertificate); n != 0 {
		t.Errorf("%d verdicts are left", n)
	}
	if n := testutil.CollectAndCount(NewCollector(c), metricChecks); n != 3 {
		t.Errorf("%d series are left, want 3", n)
	}
}
