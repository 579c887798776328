package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tproxyd/tproxyd/internal/netnstest"
)

// smokeOptions are for every work and subject, tiny.
func smokeOptions(t *testing.T) *options {
	t.Helper()
	o, err := parseOptions([]string{"--json", "--duration", "100ms"}, os.Stderr)
	if err != nil {
		t.Fatal(err)
	}
	o.idleFlows = 200
	o.tproxyd = filepath.Join(t.TempDir(), "tproxyd")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", o.tproxyd, "../cmd/tproxyd")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build tproxyd: %v\n%s", err, out)
	}
	return o
}

// Every work with every subject: the contract holds, and all is counted.
func TestSmoke(t *testing.T) {
	netnstest.Need(t, "haproxy", "haproxy")
	netnstest.Need(t, "nginx", "libnginx-mod-stream")
	o := smokeOptions(t)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	var stdout, stderr bytes.Buffer
	code, err := measureAndPrint(ctx, o, &stdout, &stderr)
	if err != nil || code != exitOK {
		t.Fatalf("exit code %d, %v\n%s", code, err, &stderr)
	}
	var got struct {
		Results []struct {
			Work, Subject, Metric, Unit string
			Median, Min, Max            float64
		}
		Ratios []struct {
			Work, Metric, Peer string
			Ratio              float64
		}
		Env map[string]any
	}
	dec := json.NewDecoder(&stdout)
	dec.DisallowUnknownFields()
	if err := dec.Decode(&got); err != nil {
		t.Fatal(err)
	}
	have := map[string]float64{}
	for _, r := range got.Results {
		have[r.Work+" "+r.Subject+" "+r.Metric] = r.Median
		mayBeNothing := r.Metric == metricSoftirqd || r.Metric == metricOthers
		if r.Median <= 0 && !mayBeNothing || r.Min > r.Median || r.Max < r.Median || r.Unit == "" {
			t.Errorf("result %+v: want more than nothing, min <= median <= max, and a unit", r)
		}
	}
	for _, want := range expected(o) {
		if _, ok := have[want]; !ok {
			t.Errorf("no result %q", want)
		}
	}
	for _, r := range got.Ratios {
		mine, peer := have[r.Work+" "+ours+" "+r.Metric], have[r.Work+" "+r.Peer+" "+r.Metric]
		if r.Ratio != mine/peer {
			t.Errorf("ratio %+v: want %v / %v", r, mine, peer)
		}
	}
	if len(got.Ratios) == 0 || got.Env["kernel"] == "" || got.Env["rounds"] != 1.0 {
		t.Errorf("%d ratios, env %v", len(got.Ratios), got.Env)
	}
}

// expected lists what may not be missing, as "work subject metric".
func expected(o *options) []string {
	var out []string
	for _, w := range o.works {
		for _, s := range o.subjects {
			metrics := []string{metricThroughput}
			switch {
			case strings.HasPrefix(w.name, "tcp_idle"):
				metrics = []string{metricMemory, metricFDs}
			case !strings.HasPrefix(w.name, "tcp_bulk"):
				metrics = append(metrics, metricP50, metricP99)
			}
			switch {
			case s != theDirect && metrics[0] == metricThroughput:
				metrics = append(metrics, metricCPU, metricBusy)
			case s == theDirect && metrics[0] == metricMemory:
				metrics = nil
			}
			for _, m := range metrics {
				out = append(out, w.name+" "+s+" "+m)
			}
		}
	}
	return out
}

// A proxy that hides the client's address is not measured, but named.
func TestOpaqueProxyFails(t *testing.T) {
	netnstest.Need(t, "haproxy", "haproxy")
	o, err := parseOptions([]string{"--duration", "50ms", "--work", "tcp_keepalive_1"}, os.Stderr)
	if err != nil {
		t.Fatal(err)
	}
	s, err := newStage(o)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.close(); err != nil {
			t.Error(err)
		}
	}()
	opaque := subject{name: "opaque", command: func(o *options, dir string) ([]string, error) {
		command, err := haproxyCommand(o, dir)
		if err != nil {
			return nil, err
		}
		path := filepath.Join(dir, "haproxy.cfg")
		config, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		return command, os.WriteFile(path, bytes.ReplaceAll(config, []byte("source 0.0.0.0 usesrc clientip"), nil), 0o644)
	}}
	_, err = s.measure(t.Context(), o.works[0], opaque)
	if err == nil || !strings.Contains(err.Error(), "opaque is not transparent") {
		t.Errorf("measure = %v, want an error that says that it is not transparent", err)
	}
	broken := subject{name: "broken", command: func(o *options, _ string) ([]string, error) {
		return []string{o.haproxy, "-f", "/nonexistent.cfg"}, nil
	}}
	_, err = s.measure(t.Context(), o.works[0], broken)
	if err == nil || !strings.Contains(err.Error(), "/nonexistent.cfg") {
		t.Errorf("measure = %v, want an error with what haproxy said", err)
	}
}
