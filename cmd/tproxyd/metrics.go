package main

import "github.com/prometheus/client_golang/prometheus"

// daemonMetrics are the metrics that belong neither to the data plane nor to
// the Go runtime.
type daemonMetrics struct {
	server                                     *server
	success, timestamp, lostLines, lostRecords *prometheus.Desc
	reloadFailures                             prometheus.Counter
}

func newDaemonMetrics(d *server) *daemonMetrics {
	desc := func(name, help string) *prometheus.Desc { return prometheus.NewDesc(name, help, nil, nil) }
	return &daemonMetrics{
		server:      d,
		success:     desc("tproxyd_config_last_reload_success", "Whether the last load of the configuration succeeded (1) or was refused (0)."),
		timestamp:   desc("tproxyd_config_last_reload_timestamp_seconds", "Time of the last load of the configuration, refused or not."),
		lostLines:   desc("tproxyd_log_dropped_total", "Log lines lost because their reader was too slow."),
		lostRecords: desc("tproxyd_access_log_dropped_total", "Access records lost because their reader was too slow."),
		reloadFailures: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "tproxyd_config_reload_failures_total", Help: "Loads of the configuration that were refused.",
		}),
	}
}

// Describe implements prometheus.Collector.
func (m *daemonMetrics) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{m.success, m.timestamp, m.lostLines, m.lostRecords} {
		ch <- d
	}
	m.reloadFailures.Describe(ch)
}

// Collect implements prometheus.Collector.
func (m *daemonMetrics) Collect(ch chan<- prometheus.Metric) {
	if r := m.server.lastReload.Load(); r != nil {
		success := 0.0
		if r.err == "" {
			success = 1
		}
		ch <- prometheus.MustNewConstMetric(m.success, prometheus.GaugeValue, success)
		ch <- prometheus.MustNewConstMetric(m.timestamp, prometheus.GaugeValue, float64(r.at.UnixMilli())/1000)
	}
	ch <- prometheus.MustNewConstMetric(m.lostLines, prometheus.CounterValue, float64(m.server.logs.Dropped()))
	ch <- prometheus.MustNewConstMetric(m.lostRecords, prometheus.CounterValue, float64(m.server.access.dropped()))
	m.reloadFailures.Collect(ch)
}
