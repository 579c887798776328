package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tproxyd/tproxyd/bench/load"
	"github.com/tproxyd/tproxyd/internal/netnstest"
)

// smokeOptions are for every work and subject, tiny.
func smokeOptions(t *testing.T, works ...string) *options {
	t.Helper()
	o, err := parseOptions([]string{"--json", "--duration", "100ms", "--work", strings.Join(works, ",")}, os.Stderr)
	if err != nil {
		t.Fatal(err)
	}
	o.idleFlows, o.checkTime = 200, time.Second
	o.tproxyd = filepath.Join(t.TempDir(), "tproxyd")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", o.tproxyd, "../cmd/tproxyd")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build tproxyd: %v\n%s", err, out)
	}
	return o
}

// smokeReport is the contract of the JSON.
type smokeReport struct {
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

// Every work of TCP with every subject: the contract holds, and all is counted.
func TestSmoke(t *testing.T) {
	netnstest.Need(t, "haproxy", "haproxy")
	netnstest.Need(t, "nginx", "libnginx-mod-stream")
	smoke(t, smokeOptions(t, worksWith("tcp_")...))
}

// Two daemons without checks and one with them.
func TestSmokeChecks(t *testing.T) {
	o := smokeOptions(t, worksWith("health_")...)
	o.other, o.subjects = o.tproxyd, []string{ours, theFull, theOther}
	smoke(t, o)
}

// What a shadow gets is counted.
func TestSmokeShadow(t *testing.T) {
	o := smokeOptions(t, "shadow_cost")
	o.subjects = []string{ours, theShadow}
	smoke(t, o)
}

// Works with frames, and of the subjects those that differ in how they are
// started, stopped and counted. A capture takes its time, because packets may
// wait for a second in a ring.
func TestSmokeFrames(t *testing.T) {
	netnstest.Need(t, "tcpdump", "tcpdump")
	netnstest.Need(t, "trafgen", "netsniff-ng")
	netnstest.Need(t, "tcpreplay", "tcpreplay")
	o := smokeOptions(t, "tap_64", "tap_recorder", "tap_parse", "send_gso", "send_64_ifb")
	o.subjects = []string{ours, theNewFile, theTcpdump, theGopacket, theRing, theTrafgen, theTcpreplay, theSendMMsg}
	o.captureDir = t.TempDir()
	smoke(t, o)
}

// The same for UDP. Two subjects that differ in their configuration alone are
// enough for TCP.
func TestSmokeDatagrams(t *testing.T) {
	netnstest.Need(t, "haproxy", "haproxy")
	netnstest.Need(t, "nginx", "libnginx-mod-stream")
	o := smokeOptions(t, worksWith("udp_")...)
	o.subjects = slices.DeleteFunc(o.subjects, func(name string) bool { return name == theFull || name == theTap })
	smoke(t, o)
}

func worksWith(prefix string) []string {
	return slices.DeleteFunc(workNames(), func(name string) bool { return !strings.HasPrefix(name, prefix) })
}

func smoke(t *testing.T, o *options) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	var stdout, stderr bytes.Buffer
	code, err := measureAndPrint(ctx, o, &stdout, &stderr)
	if err != nil || code != exitOK {
		t.Fatalf("exit code %d, %v\n%s", code, err, &stderr)
	}
	var got smokeReport
	dec := json.NewDecoder(&stdout)
	dec.DisallowUnknownFields()
	if err := dec.Decode(&got); err != nil {
		t.Fatal(err)
	}
	have := map[string]float64{}
	for _, r := range got.Results {
		have[r.Work+" "+r.Subject+" "+r.Metric] = r.Median
		mayBeNothing := slices.Contains([]string{metricSoftirqd, metricOthers, metricLoss, metricReordered, metricMallocs, metricCopied}, r.Metric)
		mayBeNothing = mayBeNothing || strings.HasPrefix(r.Work, "tap_")              // too short for a block to be full
		mayBeNothing = mayBeNothing || r.Work == "health_200" && r.Subject != theFull // a daemon that rests
		if r.Median <= 0 && !mayBeNothing || r.Min > r.Median || r.Max < r.Median || r.Unit == "" {
			t.Errorf("result %+v: want more than nothing, min <= median <= max, and a unit", r)
		}
		if sub, err := subjectByName(r.Subject); err != nil || sub.tcpOnly && strings.HasPrefix(r.Work, "udp_") {
			t.Errorf("result %+v of a subject that cannot do the work (%v)", r, err)
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
	if t.Failed() {
		t.Logf("progress:\n%s", &stderr)
	}
}

// expected lists what may not be missing, as "work subject metric".
func expected(o *options) []string {
	var out []string
	for _, w := range o.works {
		for _, name := range o.subjects {
			for _, m := range metricsOf(w, name) {
				out = append(out, w.name+" "+name+" "+m)
			}
		}
	}
	return out
}

func metricsOf(w work, subject string) []string {
	var metrics []string
	if sub, err := subjectByName(subject); err != nil || !sub.does(w) {
		return nil
	}
	switch {
	case w.tap != nil:
		return []string{metricThroughput, metricCPU, metricBusy, metricLoss}
	case w.send != nil:
		return []string{metricThroughput, metricCPU, metricPerCPU}
	case w.parse:
		return []string{metricCPU, metricMallocs}
	case w.udp != nil && subject == theHAProxy:
		return nil
	case w.udp != nil && subject == theDirect:
		return []string{metricMaxRate}
	case w.udp != nil:
		metrics = []string{metricMaxRate, metricThroughput, metricLoss}
	case w.checks && subject == theFull:
		return []string{metricCPU, metricThroughput}
	case w.checks:
		return []string{metricCPU}
	case w.mode == load.Idle && subject == theDirect:
		return nil
	case w.mode == load.Idle:
		return []string{metricMemory, metricFDs}
	case w.mode == load.Up, w.mode == load.Down:
		metrics = []string{metricThroughput}
		if subject == theShadow {
			metrics = append(metrics, metricCopied)
		}
	default:
		metrics = []string{metricThroughput, metricP50, metricP99}
	}
	if subject != theDirect {
		metrics = append(metrics, metricCPU, metricBusy)
	}
	return metrics
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
	opaque := subject{name: "opaque", command: func(o *options, dir string, w work) ([]string, error) {
		command, err := haproxyCommand(o, dir, w)
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
	broken := subject{name: "broken", command: func(o *options, _ string, _ work) ([]string, error) {
		return []string{o.haproxy, "-f", "/nonexistent.cfg"}, nil
	}}
	_, err = s.measure(t.Context(), o.works[0], broken)
	if err == nil || !strings.Contains(err.Error(), "/nonexistent.cfg") {
		t.Errorf("measure = %v, want an error with what haproxy said", err)
	}
}

// The same for UDP: the port has to be the client's, too.
func TestOpaqueDatagramProxyFails(t *testing.T) {
	netnstest.Need(t, "nginx", "libnginx-mod-stream")
	o, err := parseOptions([]string{"--duration", "50ms", "--work", "udp_small_1"}, os.Stderr)
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
	for _, bind := range []string{"", "proxy_bind $remote_addr transparent;"} {
		opaque := subject{name: "opaque", command: func(o *options, dir string, w work) ([]string, error) {
			command, err := nginxCommand(o, dir, w)
			if err != nil {
				return nil, err
			}
			path := filepath.Join(dir, "nginx.conf")
			config, err := os.ReadFile(path)
			if err != nil {
				return nil, err
			}
			config = bytes.ReplaceAll(config, []byte("proxy_bind $remote_addr:$remote_port transparent;"), []byte(bind))
			return command, os.WriteFile(path, config, 0o644)
		}}
		_, err = s.measureRate(t.Context(), o.works[0], opaque)
		if err == nil || !strings.Contains(err.Error(), "opaque is not transparent") {
			t.Errorf("with %q: error = %v, want one that says that it is not transparent", bind, err)
		}
	}
	broken := subject{name: "broken", command: func(o *options, _ string, _ work) ([]string, error) {
		return []string{o.nginx, "-c", "/nonexistent.conf"}, nil
	}}
	_, err = s.measureRate(t.Context(), o.works[0], broken)
	if err == nil || !strings.Contains(err.Error(), "/nonexistent.conf") {
		t.Errorf("error = %v, want one with what nginx said", err)
	}
}
