package admin

import (
	"runtime"
	"runtime/debug"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
)

const metricBuildInfo = "tproxyd_build_info"

// NewRegistry returns a registry of its own with the collectors of the Go
// runtime and of the process, and the build information.
func NewRegistry(version string) *prometheus.Registry {
	reg := prometheus.NewRegistry()
	reg.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		NewBuildInfo(version),
	)
	return reg
}

// NewBuildInfo returns tproxyd_build_info, which is always 1 and tells in its
// labels what is running.
func NewBuildInfo(version string) prometheus.Collector {
	g := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: metricBuildInfo,
		Help: "What is running: version, Go version and revision of the source; always 1.",
		ConstLabels: prometheus.Labels{
			"version":   version,
			"goversion": runtime.Version(),
			"revision":  revision(),
		},
	})
	g.Set(1)
	return g
}

// revision is the commit that the binary was built from, if go build knew it.
func revision() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				return s.Value
			}
		}
	}
	return "unknown"
}
