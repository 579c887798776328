package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tproxyd/tproxyd/bench/load"
)

// measureRate finds the highest rate without loss, and notes it.
func (s *stage) measureRate(ctx context.Context, w work, sub subject) (out []sample, err error) {
	m, err := s.startDatagrams(ctx, w, sub)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, m.stop()) }()
	return m.measureRate(ctx)
}

// measureDatagrams takes the cost at a rate, and with again set the highest rate
// once more.
func (s *stage) measureDatagrams(ctx context.Context, w work, sub subject, rate float64, again bool) (out []sample, err error) {
	if rate == 0 {
		return nil, errors.New("no rate without loss is known")
	}
	m, err := s.startDatagrams(ctx, w, sub)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, m.stop()) }()
	if m.proxy != nil {
		if out, err = m.measureCPU(ctx, rate); err != nil {
			return nil, err
		}
	}
	if !again {
		return out, nil
	}
	found, err := m.measureRate(ctx)
	return append(out, found...), err
}

func (m *datagramMeasurement) measureRate(ctx context.Context) ([]sample, error) {
	guess, step, budget := m.work.udp.guess, float64(firstStep), firstBudget
	if last := m.rates[m.work.name][m.subject.name]; last > 0 {
		guess, step, budget = last, laterStep, laterBudget
	}
	rate, err := m.findMaxRate(ctx, guess, step, time.Duration(budget*float64(m.opts.duration)))
	if err != nil {
		return nil, err
	}
	m.rates.set(m.work.name, m.subject.name, rate)
	unit := "datagrams/s"
	if m.work.udp.ask {
		unit = "requests/s"
	}
	return []sample{{metricMaxRate, rate, unit}}, nil
}

// findMaxRate searches from a guess on, as long as the time allows.
func (m *datagramMeasurement) findMaxRate(ctx context.Context, guess, step float64, budget time.Duration) (float64, error) {
	length := max(minTrial, time.Duration(trialShare*float64(m.opts.duration)))
	deadline := time.Now().Add(budget)
	best := map[float64]float64{} // sent, by rate
	s := search{
		guess: guess, step: step,
		try: func(rate float64) (bool, error) {
			o, err := m.trial(ctx, rate, length)
			if o.good() {
				best[rate] = o.achieved()
			}
			return o.good(), err
		},
		expired: func() bool { return time.Now().After(deadline) },
	}
	rate, err := s.run()
	return best[rate], err
}

// measureCPU runs at a rate and returns what it costs. Where datagrams are lost
// at a rate that the proxy has shown to carry, something disturbed it: then it
// is repeated, and the best one counts, whatever it is.
func (m *datagramMeasurement) measureCPU(ctx context.Context, rate float64) (best []sample, err error) {
	least := 2.0
	for range cpuAttempts {
		o, c, err := m.cpuRun(ctx, rate)
		if err != nil {
			return nil, err
		}
		if o.loss() < least {
			least = o.loss()
			best = append(m.work.samples(c, m.proxy != nil), sample{metricLoss, o.loss(), "share"})
			if !m.work.udp.ask { // queries are flows of their own, which have no order
				best = append(best, sample{metricReordered, o.reordered(), "share"})
			}
		}
		if least <= tolerableLoss {
			break
		}
	}
	return best, nil
}

func (m *datagramMeasurement) cpuRun(ctx context.Context, rate float64) (o outcome, c counted, err error) {
	began, err := m.begin(ctx, rate)
	if err != nil {
		return o, c, err
	}
	if err := sleep(ctx, min(maxWarmUp, m.opts.duration/4)); err != nil {
		return o, c, err
	}
	from, at, err := m.point(ctx)
	if err != nil {
		return o, c, err
	}
	for c.operations == 0 {
		if err := sleep(ctx, m.opts.duration); err != nil {
			return o, c, err
		}
		to, end, err := m.point(ctx)
		if err != nil {
			return o, c, err
		}
		c = spent(from, to)
		c.operations, c.seconds = end.Received-at.Received, float64(end.TimeNS-at.TimeNS)/1e9
		if took := to.at.Sub(from.at); c.operations == 0 && took > max(stallTimeout, m.opts.duration) {
			return o, c, m.explain(fmt.Errorf("no datagram arrived in %s", took))
		}
	}
	o, err = m.end(ctx, began, rate)
	return o, c, err
}

// point takes the counters in the middle of a run.
func (m *datagramMeasurement) point(ctx context.Context) (p point, r load.DatagramReport, err error) {
	if r, err = m.ask(ctx, m.receiver(), "stat"); err != nil {
		return p, r, err
	}
	return p, r, m.readProxy(&p)
}
