package mirror

import (
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

// Reason is why a frame was dropped.
type Reason uint8

// Reasons.
const (
	Rate     Reason = iota // Config.Rate
	Overload               // the output took no more
	RingFull               // the ring did: frames came faster than they were mirrored
	TooLong                // for the port's MTU, or for a packet to the collector
	LinkDown               // the port is down, or there is no way to the collector
	Format                 // not a frame that can be passed on
	Failed                 // what else the kernel says
	reasons
)

// String is the metric's label.
func (r Reason) String() string {
	return [reasons]string{"rate", "overload", "ring", "too_long", "link_down", "format", "error"}[r]
}

// Stats are counts since the mirror was made.
type Stats struct {
	Seen   uint64 // frames that were picked, super-frames as one
	Cut    uint64 // how many more they became by cutting super-frames
	Frames uint64 // that have been sent, a super-frame that leaves whole as one
	Bytes  uint64 // of those, without encapsulation

	Dropped [reasons]uint64
}

// Drops is the sum of all that was dropped.
func (s *Stats) Drops() (n uint64) {
	for _, d := range s.Dropped {
		n += d
	}
	return n
}

type counters struct {
	seen, cut, frames, bytes atomic.Uint64
	dropped                  [reasons]atomic.Uint64
}

func (c *counters) drop(r Reason, n int) { c.dropped[r].Add(uint64(n)) }

func (c *counters) sent(frames, bytes int) {
	c.frames.Add(uint64(frames))
	c.bytes.Add(uint64(bytes))
}

func (c *counters) stats() Stats {
	s := Stats{Seen: c.seen.Load(), Cut: c.cut.Load(), Frames: c.frames.Load(), Bytes: c.bytes.Load()}
	for r := range s.Dropped {
		s.Dropped[r] = c.dropped[r].Load()
	}
	return s
}

// Counted is a mirror of either engine.
type Counted interface {
	Name() string
	Stats() Stats
}

// Collector tells Prometheus about the mirrors that its function returns.
type Collector struct {
	mirrors                func() []Counted
	frames, bytes, dropped *prometheus.Desc
}

// NewCollector makes a Collector.
func NewCollector(mirrors func() []Counted) *Collector {
	label := []string{"mirror"}
	return &Collector{
		mirrors: mirrors,
		frames:  prometheus.NewDesc("tproxyd_mirror_frames_total", "Frames sent by a mirror.", label, nil),
		bytes:   prometheus.NewDesc("tproxyd_mirror_bytes_total", "Bytes of frames sent by a mirror, without encapsulation.", label, nil),
		dropped: prometheus.NewDesc("tproxyd_mirror_dropped_total", "Frames that a mirror should have sent and dropped.", append(label, "reason"), nil),
	}
}

// Describe is for the registry.
func (c *Collector) Describe(out chan<- *prometheus.Desc) {
	out <- c.frames
	out <- c.bytes
	out <- c.dropped
}

// Collect is for the registry.
func (c *Collector) Collect(out chan<- prometheus.Metric) {
	for _, m := range c.mirrors() {
		s := m.Stats()
		out <- prometheus.MustNewConstMetric(c.frames, prometheus.CounterValue, float64(s.Frames), m.Name())
		out <- prometheus.MustNewConstMetric(c.bytes, prometheus.CounterValue, float64(s.Bytes), m.Name())
		for r := range reasons {
			out <- prometheus.MustNewConstMetric(c.dropped, prometheus.CounterValue, float64(s.Dropped[r]), m.Name(), r.String())
		}
	}
}
