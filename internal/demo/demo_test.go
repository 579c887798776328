package demo

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tproxyd/tproxyd/internal/netnstest"
)

// contract is the names of all checks, in order.
var contract = []string{
	"vip_source_preserved_v4", "vip_peer_is_vip_v4", "vip_source_preserved_v6", "vip_peer_is_vip_v6", "vip_balanced",
	"intercept_source_preserved_v4", "intercept_peer_is_destination_v4",
	"intercept_source_preserved_v6", "intercept_peer_is_destination_v6",
	"udp_vip_source_preserved_v4", "udp_vip_source_preserved_v6",
	"udp_intercept_source_preserved_v4", "udp_intercept_source_preserved_v6",
	"small_copied", "bulk_checksum_down", "bulk_checksum_up", "bulk_spliced",
	"reset_passed_on", "half_close", "reload", "bad_reload_refused",
	"health_failover", "return_path_verdict", "sni_route", "proxy_protocol", "runtime_drain", "shadow_bytes_equal", "zcprobe", "mirror_frames_equal", "tap_linked_flow", "tap_recorder_dump", "tap_live", "metrics_exact", "descriptors", "drain", "nothing_left",
}

const testBulk = 8 << 20

type result struct {
	OK     bool    `json:"ok"`
	Checks []Check `json:"checks"`
}

func runJSON(t *testing.T, cfg Config) (r result, ok bool, err error) {
	t.Helper()
	var out bytes.Buffer
	cfg.Out, cfg.JSON, cfg.Bulk = &out, true, testBulk
	ok, err = Run(t.Context(), cfg)
	dec := json.NewDecoder(&out)
	dec.DisallowUnknownFields()
	if bad := dec.Decode(&r); bad != nil || dec.More() {
		t.Fatalf("output is not one JSON object: %v\n%s", bad, out.String())
	}
	if r.OK != ok {
		t.Errorf("printed ok is %v, returned %v", r.OK, ok)
	}
	return r, ok, err
}

// build makes the real program.
func build(t *testing.T) string {
	t.Helper()
	goTool := netnstest.Need(t, "go", "golang")
	exe := filepath.Join(t.TempDir(), "tproxyd")
	cmd := exec.CommandContext(t.Context(), goTool, "build", "-buildvcs=false", "-o", exe, "github.com/tproxyd/tproxyd/cmd/tproxyd")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build the daemon: %v\n%s", err, out)
	}
	return exe
}

func TestDemo(t *testing.T) {
	r, ok, err := runJSON(t, Config{Exe: build(t)})
	if err != nil || !ok {
		t.Errorf("Run = %v, %v, want all good", ok, err)
	}
	var names []string
	for _, c := range r.Checks {
		names = append(names, c.Name)
		if !c.OK || c.Detail == "" {
			t.Errorf("check %s: %v, %s", c.Name, c.OK, c.Detail)
		}
	}
	if diff := cmp.Diff(contract, names); diff != "" {
		t.Errorf("checks (-want +got):\n%s", diff)
	}
}

// TestNaive makes sure that the checks tell the daemon from a plain relay.
func TestNaive(t *testing.T) {
	t.Setenv(naiveEnv, "1")
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	r, ok, err := runJSON(t, Config{Exe: exe, step: 500 * time.Millisecond})
	if err != nil || ok {
		t.Errorf("Run = %v, %v, want false", ok, err)
	}
	wantGood := []string{
		"vip_peer_is_vip_v4", "vip_peer_is_vip_v6", "intercept_peer_is_destination_v4", "intercept_peer_is_destination_v6",
		"bulk_checksum_down", "bulk_checksum_up", "nothing_left",
	}
	var good, names []string
	for _, c := range r.Checks {
		names = append(names, c.Name)
		if c.OK {
			good = append(good, c.Name)
		}
	}
	if diff := cmp.Diff(wantGood, good); diff != "" {
		t.Errorf("good checks of a plain relay (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(contract, names); diff != "" {
		t.Errorf("checks (-want +got):\n%s", diff)
	}
}

func TestDaemonDoesNotStart(t *testing.T) {
	exe := filepath.Join(t.TempDir(), "broken")
	if err := os.WriteFile(exe, []byte("#!/bin/sh\necho no such thing >&2\nexit 2\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	r, _, err := runJSON(t, Config{Exe: exe})
	if err == nil || !strings.Contains(err.Error(), "exit status 2") || !strings.Contains(err.Error(), "no such thing") {
		t.Errorf("error %v does not tell what the daemon said", err)
	}
	if len(r.Checks) != 1 || r.Checks[0].OK || r.Checks[0].Name != "lab" {
		t.Errorf("checks %v, want lab to have failed", r.Checks)
	}
}

// TestJudge holds which verdicts of zcprobe are none.
func TestJudge(t *testing.T) {
	p := func(results ...string) (p probed) {
		for i, r := range results {
			p.Methods = append(p.Methods, probedMethod{Method: probedMethods[i], Result: r})
		}
		return p
	}
	for want, p := range map[string]probed{
		"":                       p("by-reference", "copied", "not-supported", "by-reference", "copied"),
		"sendmmsg(2) copies":     p("copied", "by-reference", "copied", "copied", "copied"),
		`ring: "unknown" is no`:  p("unknown", "copied", "copied", "copied", "copied"),
		"verdicts on [gso mmsg ": p("copied", "copied", "copied", "copied"),
	} {
		if err := p.judge(); want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}
