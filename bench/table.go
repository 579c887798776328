package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
)

// writeText prints the report for a person.
func (r *report) writeText(w io.Writer) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	r.writeResults(tw)
	r.writeRatios(tw)
	r.writeTargets(tw)
	if err := tw.Flush(); err != nil {
		return err
	}
	for _, f := range r.Failures {
		if _, err := fmt.Fprintf(w, "FAILED: %s, %s, round %d: %s\n", f.Work, f.Subject, f.Round, f.Error); err != nil {
			return err
		}
	}
	if n := r.above(metricLoss, tolerableLoss); n > 0 {
		_, err := fmt.Fprintf(w, "\nLOSSY: at %d works of a subject more than %g %% of the datagrams or packets were lost while the processor's time was taken (%s).\n",
			n, 100*tolerableLoss, metricLoss)
		if err != nil {
			return err
		}
	}
	if n := r.above(metricOthers, tolerated); n > 0 {
		_, err := fmt.Fprintf(w, "\nNOISY: at %d works of a subject others took more than %.0f %% of the proxy's processor (%s).\n",
			n, 100*tolerated, metricOthers)
		if err != nil {
			return err
		}
	}
	e := r.Env
	_, err := fmt.Fprintf(w, "\n%s, Linux %s, %d processors: proxy on %d, clients and backend on %d.\n"+
		"%d rounds of %g s; tproxyd's source policy: %s for TCP, client for UDP; UDP receive buffers of %d bytes.\n",
		e.CPU, e.Kernel, e.CPUs, e.ProxyCPU, e.ClientCPU, e.Rounds, e.Duration, e.Source, e.Buffer)
	for _, name := range subjectNames() {
		if v := e.Versions[name]; v != "" && err == nil {
			_, err = fmt.Fprintf(w, "%s: %s\n", name, v)
		}
	}
	return err
}

// tolerated is the share of the proxy's processor that others may have.
const tolerated = 0.05

// above counts the medians of a metric that are above what is tolerated.
func (r *report) above(metric string, most float64) int {
	n := 0
	for _, res := range r.Results {
		if res.Metric == metric && res.Median > most {
			n++
		}
	}
	return n
}

// The errors of a tabwriter on its way are those of its Flush.
func (r *report) writeResults(w io.Writer) {
	work := ""
	for _, res := range r.Results {
		if res.Work != work {
			work = res.Work
			fmt.Fprintf(w, "\n%s\tsubject\tmedian\tmin\tmax\tunit\n", work)
		}
		fmt.Fprintf(w, "  %s\t%s\t%s\t%s\t%s\t%s\n",
			res.Metric, res.Subject, number(res.Median), number(res.Min), number(res.Max), res.Unit)
	}
}

func (r *report) writeRatios(w io.Writer) {
	if len(r.Ratios) == 0 {
		return
	}
	var peers []string
	for _, ra := range r.Ratios {
		if !slices.Contains(peers, ra.Peer) {
			peers = append(peers, ra.Peer)
		}
	}
	fmt.Fprintf(w, "\n%s's median divided by that of\t\t%s\n", ours, strings.Join(peers, "\t"))
	type row struct{ work, metric string }
	var rows []row
	cells := map[row]map[string]string{}
	for _, ra := range r.Ratios {
		k := row{ra.Work, ra.Metric}
		if cells[k] == nil {
			cells[k] = map[string]string{}
			rows = append(rows, k)
		}
		cells[k][ra.Peer] = fmt.Sprintf("%.2f", ra.Ratio)
	}
	for _, k := range rows {
		fmt.Fprintf(w, "  %s\t%s", k.work, k.metric)
		for _, peer := range peers {
			fmt.Fprintf(w, "\t%s", cells[k][peer])
		}
		fmt.Fprintln(w)
	}
}

func (r *report) writeTargets(w io.Writer) {
	fmt.Fprintf(w, "\ntargets\t\tagainst\tmeasured\treach\tbeyond\t\n")
	for _, t := range targets() {
		value, ok := t.measured(r)
		measured, verdict := "-", "not measured"
		if ok {
			measured, verdict = fmt.Sprintf("%.2f", value), t.verdict(value)
		}
		bound := "<="
		if t.atLeast() {
			bound = ">="
		}
		fmt.Fprintf(w, "  %s\t%s\t%s\t%s\t%s %.2f\t%s %.2f\t%s\n", t.work, t.metric, t.against(), measured, bound, t.reach, bound, t.beyond, verdict)
	}
}

// number prints three significant digits, and all before the point.
func number(v float64) string {
	if v >= 1000 || v <= -1000 {
		return fmt.Sprintf("%.0f", v)
	}
	return fmt.Sprintf("%.3g", v)
}
