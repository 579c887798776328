package tap

import "github.com/prometheus/client_golang/prometheus"

// The metrics' names.
const (
	metricPackets      = "tproxyd_tap_packets_total"
	metricBytes        = "tproxyd_tap_bytes_total"
	metricSinkDrops    = "tproxyd_tap_sink_drops_total"
	metricRingDrops    = "tproxyd_tap_ring_drops_total"
	metricFreezes      = "tproxyd_tap_freezes_total"
	metricBlocks       = "tproxyd_tap_blocks_total"
	metricRingFill     = "tproxyd_tap_ring_fill"
	metricFlows        = "tproxyd_tap_flows"
	metricForgotten    = "tproxyd_tap_forgotten_total"
	metricDumps        = "tproxyd_tap_dumps_total"
	metricCompleteness = "tproxyd_tap_flow_completeness"
)

var (
	onRing = []string{"interface", "ring"}

	descPackets   = prometheus.NewDesc(metricPackets, "Packets written by a capture.", []string{"capture"}, nil)
	descBytes     = prometheus.NewDesc(metricBytes, "Bytes written by a capture, before compression.", []string{"capture"}, nil)
	descSinkDrops = prometheus.NewDesc(metricSinkDrops, "Packets lost because a capture's disk, or a viewer, was too slow. All viewers are the sink live.", []string{"sink"}, nil)
	descRingDrops = prometheus.NewDesc(metricRingDrops, "Packets that the kernel found no room for in a ring.", onRing, nil)
	descFreezes   = prometheus.NewDesc(metricFreezes, "How often a ring was full.", onRing, nil)
	descBlocks    = prometheus.NewDesc(metricBlocks, "Blocks of a ring that were read.", onRing, nil)
	descRingFill  = prometheus.NewDesc(metricRingFill, "How much of a ring the kernel cannot write to now, from 0 to 1.", onRing, nil)
	descFlows     = prometheus.NewDesc(metricFlows, "Flows that the tap knows.", nil, nil)
	descForgotten = prometheus.NewDesc(metricForgotten, "Things that the proxy told the tap and there was no room for.", nil, nil)
	descDumps     = prometheus.NewDesc(metricDumps, "Triggers of the recorder, by the result.", []string{"result"}, nil)
)

// Describe is prometheus.Collector's.
func (m *Manager) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		descPackets, descBytes, descSinkDrops, descRingDrops, descFreezes, descBlocks, descRingFill,
		descFlows, descForgotten, descDumps,
	} {
		ch <- d
	}
	m.completeness.Describe(ch)
}

// Collect is prometheus.Collector's.
func (m *Manager) Collect(ch chan<- prometheus.Metric) {
	count := func(d *prometheus.Desc, v uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
	}
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	s := m.Stats()
	for _, c := range s.Captures {
		count(descPackets, c.Packets, c.Name)
		count(descBytes, c.Bytes, c.Name)
		count(descSinkDrops, c.SinkDrops, c.Name)
	}
	live := s.Viewed.SinkDrops
	for _, v := range s.Viewers {
		live += v.SinkDrops
	}
	count(descSinkDrops, live, liveSink)
	for _, i := range s.Interfaces {
		kind := map[bool]string{false: "capture", true: "recorder"}[i.Recorder]
		count(descRingDrops, i.Drops, i.Name, kind)
		count(descFreezes, i.Freezes, i.Name, kind)
		count(descBlocks, i.Blocks, i.Name, kind)
		if i.Ring > 0 {
			gauge(descRingFill, float64(i.Held)/float64(i.Ring), i.Name, kind)
		}
	}
	gauge(descFlows, float64(s.Flows))
	count(descForgotten, s.Forgotten)
	count(descDumps, s.Dumps, "written")
	count(descDumps, s.DumpsRefused, "refused")
	m.completeness.Collect(ch)
}

// liveSink is all viewers in the metrics; no capture is called so.
const liveSink = "live"
