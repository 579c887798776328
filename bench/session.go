package main

import (
	"context"
	"fmt"
	"io"
	"time"
)

const (
	// Steps of the search for the highest rate without loss; in later rounds it
	// begins where the last one ended.
	firstStep = 2
	laterStep = 1.2
	// A trial, and searches, by the length of a measurement.
	trialShare  = 0.2
	firstBudget = 1.5
	laterBudget = 0.5
	minTrial    = 20 * time.Millisecond
)

// session is all rounds of all subjects on one stage.
type session struct {
	*stage
	subjects []subject
	progress io.Writer
	report   *report
	all      *collector
	common   map[string]float64 // rate by work, the same in all rounds
}

// round lets every subject do one work. Who begins changes from round to round.
func (s *session) round(ctx context.Context, round int, w work) error {
	var turns []subject
	for i := range s.subjects {
		if sub := s.subjects[(i+round)%len(s.subjects)]; sub.does(w) {
			turns = append(turns, sub)
		}
	}
	if w.udp != nil && round == 0 {
		// The rate that all of them can do has to be known first.
		for _, sub := range turns {
			err := s.turn(ctx, round, w, sub, func() ([]sample, error) { return s.measureRate(ctx, w, sub) })
			if err != nil {
				return err
			}
		}
	}
	if s.common[w.name] == 0 {
		s.common[w.name] = s.rates.common(w.name)
	}
	for _, sub := range turns {
		measure := func() ([]sample, error) { return s.measure(ctx, w, sub) }
		switch known := s.rates[w.name][sub.name] > 0; {
		case w.tap != nil:
			measure = func() ([]sample, error) { return s.measureTap(ctx, w, sub) }
		case w.send != nil:
			measure = func() ([]sample, error) { return s.measureSend(ctx, w, sub) }
		case w.parse:
			measure = func() ([]sample, error) { return s.measureParse(ctx) }
		case w.checks:
			measure = func() ([]sample, error) { return s.measureChecks(ctx, w, sub) }
		case w.udp == nil:
		case round == 0 && (sub.command == nil || !known):
			continue // it has no processor time, or has failed already
		case !known:
			measure = func() ([]sample, error) { return s.measureRate(ctx, w, sub) }
		default:
			measure = func() ([]sample, error) { return s.measureDatagrams(ctx, w, sub, s.common[w.name], round > 0) }
		}
		if err := s.turn(ctx, round, w, sub, measure); err != nil {
			return err
		}
	}
	return nil
}

// turn does one measurement. The error is that of the context: what fails is
// reported.
func (s *session) turn(ctx context.Context, round int, w work, sub subject, measure func() ([]sample, error)) error {
	fmt.Fprintf(s.progress, "round %d of %d  %-17s %-12s ", round+1, s.opts.rounds, w.name, sub.name)
	started := time.Now()
	samples, err := measure()
	if ctx.Err() != nil {
		fmt.Fprintln(s.progress, "interrupted")
		return fmt.Errorf("measure: %w", ctx.Err())
	}
	if err != nil {
		fmt.Fprintln(s.progress, "FAILED:", err)
		s.report.Failures = append(s.report.Failures, failure{Work: w.name, Subject: sub.name, Round: round + 1, Error: err.Error()})
		return nil
	}
	fmt.Fprintf(s.progress, "%s (%.1f s)\n", summary(samples), time.Since(started).Seconds())
	s.all.add(w.name, sub.name, samples)
	return nil
}
