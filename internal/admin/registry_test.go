package admin_test

import (
	"runtime"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/tproxyd/tproxyd/internal/admin"
)

func TestBuildInfo(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	reg.MustRegister(admin.NewBuildInfo("1.2.3"))
	problems, err := testutil.GatherAndLint(reg)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("promlint: %s: %s", p.Metric, p.Text)
	}
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	labels := map[string]string{}
	for _, l := range families[0].GetMetric()[0].GetLabel() {
		labels[l.GetName()] = l.GetValue()
	}
	if families[0].GetName() != "tproxyd_build_info" || families[0].GetMetric()[0].GetGauge().GetValue() != 1 {
		t.Errorf("got %v", families)
	}
	if labels["version"] != "1.2.3" || labels["goversion"] != runtime.Version() || labels["revision"] == "" || len(labels) != 3 {
		t.Errorf("labels %v", labels)
	}
}

func TestNewRegistry(t *testing.T) {
	reg := admin.NewRegistry("1.2.3")
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]bool{}
	for _, f := range families {
		prefix, _, _ := strings.Cut(f.GetName(), "_")
		found[prefix] = true
	}
	if !found["go"] || !found["process"] || !found["tproxyd"] {
		t.Errorf("prefixes %v, want go, process and tproxyd", found)
	}
}
