package demo

import (
	"context"
	"fmt"
	"io"
	"net/http"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// adminGet asks the daemon's admin address. The demo's own namespace is the
// proxy's.
func adminGet(ctx context.Context, path string, read func(io.Reader) error) error {
	ctx, cancel := context.WithTimeout(ctx, stepLimit)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+adminAddress+path, nil)
	if err != nil {
		return err
	}
	// A connection that is kept would count as the daemon's descriptor.
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := client.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(res.Body, 200)) // better than nothing
		return fmt.Errorf("GET %s: %s: %s", path, res.Status, text)
	}
	return read(res.Body)
}

func ready(ctx context.Context) error {
	return adminGet(ctx, "/readyz", func(io.Reader) error { return nil })
}

// metrics is one scrape.
type metrics map[string]*dto.MetricFamily

func scrape(ctx context.Context) (m metrics, err error) {
	err = adminGet(ctx, "/metrics", func(r io.Reader) error {
		p := expfmt.NewTextParser(model.UTF8Validation)
		m, err = p.TextToMetricFamilies(r)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read metrics: %w", err)
	}
	return m, nil
}

// sum adds up a counter or gauge over all series with the given labels, which
// are names and values by turns.
func (m metrics) sum(name string, labels ...string) float64 {
	total := 0.0
	for _, series := range m[name].GetMetric() {
		if !has(series, labels) {
			continue
		}
		total += series.GetCounter().GetValue() + series.GetGauge().GetValue() + series.GetUntyped().GetValue()
	}
	return total
}

func has(series *dto.Metric, labels []string) bool {
	for i := 0; i+1 < len(labels); i += 2 {
		found := false
		for _, l := range series.GetLabel() {
			found = found || l.GetName() == labels[i] && l.GetValue() == labels[i+1]
		}
		if !found {
			return false
		}
	}
	return true
}

// bytesBy is how many bytes have gone which way through the daemon.
func (m metrics) bytesBy(path string) float64 { return m.sum("tproxyd_bytes_total", "path", path) }
