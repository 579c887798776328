package main

import (
	"cmp"
	"encoding/json"
	"io"
	"slices"
)

// report is the outcome. Its JSON is a contract: fields may be added.
type report struct {
	Results  []result    `json:"results"`
	Ratios   []ratio     `json:"ratios"`
	Env      environment `json:"env"`
	Failures []failure   `json:"failures,omitempty"`
}

// result is one metric of one subject at one work, over all rounds.
type result struct {
	Work    string  `json:"work"`
	Subject string  `json:"subject"`
	Metric  string  `json:"metric"`
	Median  float64 `json:"median"`
	Min     float64 `json:"min"`
	Max     float64 `json:"max"`
	Unit    string  `json:"unit"`
}

// ratio is tproxyd's median divided by a peer's.
type ratio struct {
	Work   string  `json:"work"`
	Metric string  `json:"metric"`
	Peer   string  `json:"peer"`
	Ratio  float64 `json:"ratio"`
}

// environment is where and how it was measured.
type environment struct {
	Kernel    string            `json:"kernel"`
	Arch      string            `json:"arch"`
	CPU       string            `json:"cpu"`
	CPUs      int               `json:"cpus"`
	ProxyCPU  int               `json:"proxy_cpu"`
	ClientCPU int               `json:"client_cpu"`
	Versions  map[string]string `json:"versions"`
	Rounds    int               `json:"rounds"`
	Duration  float64           `json:"duration_seconds"`
	Source    string            `json:"tproxyd_source"` // for TCP; for UDP it is client
	Buffer    int               `json:"udp_receive_buffer"`
}

// failure is a measurement whose figures were dropped.
type failure struct {
	Work    string `json:"work"`
	Subject string `json:"subject"`
	Round   int    `json:"round"` // from 1
	Error   string `json:"error"`
}

// collector gathers the samples of all rounds in the order they first came.
type collector struct {
	order  []key
	values map[key][]float64
	units  map[key]string
}

type key struct{ work, subject, metric string }

func newCollector() *collector {
	return &collector{values: map[key][]float64{}, units: map[key]string{}}
}

func (c *collector) add(work, subject string, samples []sample) {
	for _, s := range samples {
		k := key{work, subject, s.metric}
		if _, seen := c.units[k]; !seen {
			c.order = append(c.order, k)
			c.units[k] = s.unit
		}
		c.values[k] = append(c.values[k], s.value)
	}
}

// results are sorted by work and subject as listed there; metrics keep the
// order in which they came.
func (c *collector) results(works, subjects []string) []result {
	out := []result{}
	for _, k := range c.order {
		v := c.values[k]
		out = append(out, result{
			Work: k.work, Subject: k.subject, Metric: k.metric, Unit: c.units[k],
			Median: median(v), Min: slices.Min(v), Max: slices.Max(v),
		})
	}
	slices.SortStableFunc(out, func(a, b result) int {
		return cmp.Or(
			cmp.Compare(slices.Index(works, a.Work), slices.Index(works, b.Work)),
			cmp.Compare(slices.Index(subjects, a.Subject), slices.Index(subjects, b.Subject)))
	})
	return out
}

// median of at least one value. It does not change v.
func median(v []float64) float64 {
	s := slices.Sorted(slices.Values(v))
	n := len(s)
	if n%2 == 1 {
		return s[n/2]
	}
	return (s[n/2-1] + s[n/2]) / 2
}

// ratios compares ours with every peer that has the same metric. A peer's
// median of 0 has no ratio, nor have the metrics that only tell how a
// measurement went.
func ratios(results []result) []ratio {
	mine := map[key]float64{}
	for _, r := range results {
		if r.Subject == ours {
			mine[key{work: r.Work, metric: r.Metric}] = r.Median
		}
	}
	out := []ratio{}
	for _, r := range results {
		our, ok := mine[key{work: r.Work, metric: r.Metric}]
		if !ok || aside(r.Metric) || r.Subject == ours || r.Median == 0 {
			continue
		}
		out = append(out, ratio{Work: r.Work, Metric: r.Metric, Peer: r.Subject, Ratio: our / r.Median})
	}
	return out
}

func (r *report) writeJSON(w io.Writer) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(r)
}
