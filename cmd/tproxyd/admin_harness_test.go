package main

import (
	"fmt"
	"io"
	"maps"
	"net/http"
	"os/exec"
	"slices"
	"strings"
	"testing"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/tproxyd/tproxyd/internal/netnstest"
	"golang.org/x/sys/unix"
)

// get fetches a page of the admin address.
func (d *process) get(path string) (string, error) { return getFrom(adminAddress, path) }

func getFrom(address, path string) (string, error) {
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: patience}
	resp, err := client.Get("http://" + address + path)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%d: %s", resp.StatusCode, strings.TrimSpace(string(body)))
	}
	return string(body), err
}

// metrics is one scrape, by name.
type metrics map[string]*dto.MetricFamily

func (d *process) scrape() (metrics, error) {
	page, err := d.get("/metrics")
	if err != nil {
		return nil, err
	}
	p := expfmt.NewTextParser(model.UTF8Validation)
	return p.TextToMetricFamilies(strings.NewReader(page))
}

func (d *process) metrics() metrics {
	d.t.Helper()
	m, err := d.scrape()
	if err != nil {
		d.t.Fatalf("scrape: %v\n%s", err, &d.stderr)
	}
	return m
}

// sum adds up the series of a metric that have the given labels, written as
// name=value. Histograms count their observations.
func (m metrics) sum(name string, labels ...string) float64 {
	total := 0.0
	for _, s := range m[name].GetMetric() {
		if all := labelsOf(s); !slices.ContainsFunc(labels, func(l string) bool { return !slices.Contains(all, l) }) {
			total += s.GetCounter().GetValue() + s.GetGauge().GetValue() + float64(s.GetHistogram().GetSampleCount())
		}
	}
	return total
}

func labelsOf(s *dto.Metric) []string {
	var all []string
	for _, l := range s.GetLabel() {
		all = append(all, l.GetName()+"="+l.GetValue())
	}
	return all
}

// labelNames are the names of the labels of a metric's series.
func (m metrics) labelNames(name string) []string {
	names := map[string]bool{}
	for _, s := range m[name].GetMetric() {
		for _, l := range s.GetLabel() {
			names[l.GetName()] = true
		}
	}
	return slices.Sorted(maps.Keys(names))
}

// wait waits until cond holds of a scrape, and returns that.
func (d *process) waitMetrics(cond func(metrics) bool, what string) metrics {
	d.t.Helper()
	var m metrics
	netnstest.Eventually(d.t, patience, func() bool {
		var err error
		m, err = d.scrape()
		return err == nil && cond(m)
	}, what)
	return m
}

// idle waits until no flow is left.
func (d *process) idle() metrics {
	d.t.Helper()
	return d.waitMetrics(func(m metrics) bool { return m.sum("tproxyd_connections_active") == 0 }, "no flow is left")
}

// reload makes the daemon read text, and waits until it has.
func (d *process) reload(text string) metrics {
	d.t.Helper()
	const timestamp = "tproxyd_config_last_reload_timestamp_seconds"
	before := d.metrics().sum(timestamp)
	d.configure(text)
	d.signal(unix.SIGHUP)
	return d.waitMetrics(func(m metrics) bool { return m.sum(timestamp) != before }, "the configuration is read again")
}

// wantReload is reload of a text that is taken or refused.
func (d *process) wantReload(text string, taken bool) metrics {
	d.t.Helper()
	want := 0.0
	if taken {
		want = 1
	}
	m := d.reload(text)
	if got := m.sum("tproxyd_config_last_reload_success"); got != want {
		d.t.Errorf("tproxyd_config_last_reload_success is %v, want %v:\n%s", got, want, &d.stderr)
	}
	return m
}

// logged waits for a line of the log with text.
func (d *process) logged(text string) {
	d.t.Helper()
	netnstest.Eventually(d.t, patience, func() bool { return strings.Contains(d.stderr.String(), text) }, "the log says "+text)
}

// closeAll closes what there is.
func closeAll[C io.Closer](t *testing.T, conns ...C) {
	t.Helper()
	for _, c := range conns {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
}

// want compares the sum of a metric's samples that have the labels.
func (m metrics) want(t *testing.T, value float64, name string, labels ...string) {
	t.Helper()
	if got := m.sum("tproxyd_"+name, labels...); got != value {
		t.Errorf("tproxyd_%s%v is %v, want %v", name, labels, got, value)
	}
}

// wantWellFormed compares the labels of metrics with what is promised, and has
// promtool look at all of them.
func (d *process) wantWellFormed(m metrics, promised map[string][]string) {
	d.t.Helper()
	for name, labels := range promised {
		if got := m.labelNames(name); m[name] == nil || !slices.Equal(got, labels) {
			d.t.Errorf("%s has the labels %v, want %v", name, got, labels)
		}
	}
	page, err := d.get("/metrics")
	if err != nil {
		d.t.Fatal(err)
	}
	check := exec.CommandContext(d.t.Context(), netnstest.Need(d.t, "promtool", "prometheus"), "check", "metrics")
	check.Stdin = strings.NewReader(page)
	if out, err := check.CombinedOutput(); err != nil || len(out) > 0 {
		d.t.Errorf("promtool check metrics: %v\n%s", err, out)
	}
}
