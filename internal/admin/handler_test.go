package admin_test

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/tproxyd/tproxyd/internal/admin"
	"github.com/tproxyd/tproxyd/internal/golden"
)

func TestPage(t *testing.T) {
	for name, state := range map[string]func() admin.Status{
		"page.golden.html":   status,
		"broken.golden.html": broken,
		"empty.golden.html":  func() admin.Status { return admin.Status{} },
	} {
		t.Run(name, func(t *testing.T) {
			resp, body := get(t, "http://"+serve(t, admin.Config{Status: state})+"/")
			if resp.StatusCode != http.StatusOK {
				t.Errorf("status %s", resp.Status)
			}
			if ct := resp.Header.Get("Content-Type"); ct != "text/html; charset=utf-8" {
				t.Errorf("content type %q", ct)
			}
			// Nothing is loaded and nothing of the status is markup.
			for _, bad := range []string{"<script", "<img", "<b>", "@import", "url(", "//"} {
				if strings.Contains(body, bad) {
					t.Errorf("the page holds %q", bad)
				}
			}
			golden.Compare(t, name, body)
		})
	}
}

func TestStatus(t *testing.T) {
	resp, body := get(t, "http://"+serve(t, admin.Config{})+"/api/v1/status")
	if ct := resp.Header.Get("Content-Type"); ct != "application/json" {
		t.Errorf("content type %q", ct)
	}
	golden.Compare(t, "status.golden.json", body)

	// A client in Go gets the same value back.
	var got admin.Status
	if err := json.Unmarshal([]byte(body), &got); err != nil {
		t.Fatal(err)
	}
	want := status()
	want.Services[1].Backends = []admin.Backend{} // nil is [] in JSON
	want.Services[1].Routes, want.Services[2].Routes = []string{}, []string{}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("decoded (-want +got):\n%s", diff)
	}
}

func TestChecks(t *testing.T) {
	var live, ready error
	base := "http://" + serve(t, admin.Config{
		Live:  func() error { return live },
		Ready: func() error { return ready },
	})
	want := func(path string, code int, body string) {
		t.Helper()
		resp, got := get(t, base+path)
		if resp.StatusCode != code || got != body {
			t.Errorf("%s: %d %q, want %d %q", path, resp.StatusCode, got, code, body)
		}
	}
	ready = errors.New("starting: worker 1 of 2 runs")
	want("/healthz", 200, "ok\n")
	want("/readyz", 503, "starting: worker 1 of 2 runs\n")
	ready = nil
	want("/readyz", 200, "ok\n")
	ready, live = errors.New("draining"), errors.New("worker 1 has not turned for 30s")
	want("/readyz", 503, "draining\n")
	want("/healthz", 503, "worker 1 has not turned for 30s\n")
}

func TestMetrics(t *testing.T) {
	reg := prometheus.NewRegistry()
	reg.MustRegister(admin.NewBuildInfo("1.2.3"), failing{})
	base := "http://" + serve(t, admin.Config{Gatherer: reg})

	// One collector fails; the others are still shown.
	resp, body := get(t, base+"/metrics")
	if resp.StatusCode != http.StatusOK || !strings.Contains(body, `version="1.2.3"} 1`) {
		t.Errorf("%s, body:\n%s", resp.Status, body)
	}

	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, base+"/metrics", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Accept", "application/openmetrics-text; version=1.0.0")
	req.Close = true
	resp, err = http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	open, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if ct := resp.Header.Get("Content-Type"); !strings.HasPrefix(ct, "application/openmetrics-text") || !strings.HasSuffix(string(open), "# EOF\n") {
		t.Errorf("asked for OpenMetrics, got %q:\n%s", ct, open)
	}
}

// failing is a collector that cannot collect.
type failing struct{}

var failingDesc = prometheus.NewDesc("failing", "Fails.", nil, nil)

func (failing) Describe(ch chan<- *prometheus.Desc) { ch <- failingDesc }

func (failing) Collect(ch chan<- prometheus.Metric) {
	ch <- prometheus.NewInvalidMetric(failingDesc, errors.New("cannot collect"))
}

func TestRefusals(t *testing.T) {
	base := "http://" + serve(t, admin.Config{})
	tests := []struct {
		method, path, body string
		code               int
	}{
		{"GET", "/", "", 200},
		{"HEAD", "/", "", 200},
		{"HEAD", "/metrics", "", 200},
		{"GET", "/metrics/", "", 404},
		{"GET", "/index.html", "", 404},
		{"GET", "/debug/pprof/", "", 404},
		{"GET", "/api/v1", "", 404},
		{"POST", "/", "", 405},
		{"DELETE", "/api/v1/status", "", 405},
		{"OPTIONS", "/", "", 405},
		{"PUT", "/metrics", "body", 405},
		{"GET", "/metrics", "body", 413},
	}
	for _, tt := range tests {
		req, err := http.NewRequestWithContext(t.Context(), tt.method, base+tt.path, strings.NewReader(tt.body))
		if err != nil {
			t.Fatal(err)
		}
		req.Close = true
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		if err := resp.Body.Close(); err != nil {
			t.Error(err)
		}
		if resp.StatusCode != tt.code {
			t.Errorf("%s %s %q: %s, want %d", tt.method, tt.path, tt.body, resp.Status, tt.code)
		}
		if tt.code == 405 && resp.Header.Get("Allow") != "GET, HEAD" {
			t.Errorf("%s %s: Allow %q", tt.method, tt.path, resp.Header.Get("Allow"))
		}
		if !strings.HasPrefix(resp.Header.Get("Content-Security-Policy"), "default-src 'none'; style-src 'unsafe-inline'") ||
			resp.Header.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s %s: security headers missing in %v", tt.method, tt.path, resp.Header)
		}
	}
}
