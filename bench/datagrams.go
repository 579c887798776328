package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tproxyd/tproxyd/bench/load"
	"github.com/tproxyd/tproxyd/bench/procstat"
	"github.com/tproxyd/tproxyd/internal/lab"
)

const (
	// receiveBuffer is SO_RCVBUF of every proxy's listener. Where
	// net.core.rmem_max is lower, those without CAP_NET_ADMIN get that.
	receiveBuffer = 4 << 20
	// tolerableLoss is what still counts as none, as a share of what was sent.
	tolerableLoss = 1e-4
	// tolerableLag: where the last datagram arrives this much after it was sent,
	// they were piling up in a queue, and would have been lost a little later.
	// The greater one counts, of a time and a share of the time of sending.
	tolerableLag      = 25 * time.Millisecond
	tolerableLagShare = 0.05
	// slowRate is one at which only loss counts: any delay is the machine's.
	slowRate = 5000
	// warmRate and warmQueryRate are at which the flows begin: low enough for a
	// proxy that gets little of its processor and takes queries before answers.
	warmRate      = 5000
	warmQueryRate = 500
	// queriesInFlight is how many queries wait for an answer at any rate: the
	// backend takes that much time, but no more than maxDelay.
	queriesInFlight = 1000
	maxDelay        = 100 * time.Millisecond
	// settleQuiet is how long nothing may arrive, and the proxy use no more than
	// settleCPU of processor time, before the rest is lost; settleSlow up to
	// slowRate, where a proxy that does not get its processor must not look like
	// one that loses.
	settleQuiet = 100 * time.Millisecond
	settleSlow  = time.Second
	settleCPU   = time.Millisecond
	settlePoll  = 2 * time.Millisecond
	// cpuAttempts is how often a run that loses is repeated.
	cpuAttempts = 2
)

// datagramMeasurement is one subject at one work of UDP. Backend and client are
// there for as long as it takes, and do one run after the other.
type datagramMeasurement struct {
	measurement
	client *process
	epoch  uint32
}

// startDatagrams starts everything and lets every flow pass once.
func (s *stage) startDatagrams(ctx context.Context, w work, sub subject) (m *datagramMeasurement, err error) {
	m = &datagramMeasurement{measurement: measurement{stage: s, work: w, subject: sub}}
	defer func() {
		if err != nil {
			err = errors.Join(err, m.stop())
		}
	}()
	m.backend, err = startPart(ctx, s.lab.Server, s.clientCPU, partDatagramBackend,
		fmt.Sprintf("%s:%d", lab.ServerIP4, w.service.port), lab.ClientRange4, fmt.Sprint(w.udp.size))
	if err != nil {
		return m, err
	}
	if _, err := m.ask(ctx, m.backend, ""); err != nil {
		return m, err
	}
	if err := m.startProxy(ctx); err != nil {
		return m, err
	}
	flows := w.flows
	if w.udp.ask {
		flows = 0
	}
	m.client, err = startPart(ctx, s.lab.Client, s.clientCPU, partDatagramClient,
		s.target(sub, w.service), lab.ClientRange4, fmt.Sprint(flows), fmt.Sprint(w.udp.size), fmt.Sprint(w.udp.burst))
	if err != nil {
		return m, err
	}
	if _, err := m.ask(ctx, m.client, ""); err != nil {
		return m, err
	}
	return m, m.warm(ctx)
}

func (m *datagramMeasurement) stop() error {
	var err error
	if m.client != nil {
		err = m.client.stop()
	}
	return errors.Join(err, m.measurement.stop())
}

// ask sends a command to one of the ends, whose answer may not show an error.
func (m *datagramMeasurement) ask(ctx context.Context, end *process, command string) (r load.DatagramReport, err error) {
	if err := end.ask(ctx, command, &r); err != nil {
		return r, m.explain(err)
	}
	switch {
	case r.Errors > 0:
		err = fmt.Errorf("%d errors, the first: %s", r.Errors, r.FirstError)
	case r.Foreign > 0 && end == m.backend:
		err = fmt.Errorf("%d datagrams reached the backend from others than their sender, the first from %s: %s is not transparent",
			r.Foreign, r.ForeignPeer, m.subject.name)
	case r.Foreign > 0:
		err = fmt.Errorf("%d answers came from others than were asked, the first from %s", r.Foreign, r.ForeignPeer)
	case r.Duplicates > 0:
		err = fmt.Errorf("%d datagrams came more than once", r.Duplicates)
	}
	if err != nil {
		err = m.explain(err)
	}
	return r, err
}

// receiver is the end where the datagrams arrive that count.
func (m *datagramMeasurement) receiver() *process {
	if m.work.udp.ask {
		return m.client
	}
	return m.backend
}

// begin starts a run at a rate.
func (m *datagramMeasurement) begin(ctx context.Context, rate float64) (load.DatagramReport, error) {
	m.epoch++
	if _, err := m.ask(ctx, m.backend, fmt.Sprintf("start %d %d", m.epoch, m.delay(rate))); err != nil {
		return load.DatagramReport{}, err
	}
	return m.ask(ctx, m.client, fmt.Sprintf("start %d %f", m.epoch, rate))
}

// delay is how long the backend takes for an answer.
func (m *datagramMeasurement) delay(rate float64) time.Duration {
	if !m.work.udp.ask {
		return 0
	}
	return min(maxDelay, time.Duration(float64(m.work.flows)/rate*1e9))
}

// end stops a run, and waits until everything has arrived, or is lost: that is
// when nothing comes any more and the proxy rests. One that is far behind may
// work for seconds before it forwards the next datagram, and what it still has
// would spoil the next run.
func (m *datagramMeasurement) end(ctx context.Context, began load.DatagramReport, rate float64) (o outcome, err error) {
	if o.sent, err = m.ask(ctx, m.client, "stop"); err != nil {
		return o, err
	}
	o.rate, o.seconds, o.delay = rate, float64(o.sent.TimeNS-began.TimeNS)/1e9, m.delay(rate)
	patience := settleQuiet + o.delay
	if rate <= slowRate {
		patience = settleSlow
	}
	var before point
	quiet := time.Now()
	for deadline := quiet.Add(settleTimeout); ; {
		var now point
		received := o.received.Received
		if o.received, err = m.ask(ctx, m.receiver(), "stat"); err != nil {
			return o, err
		}
		if err := errors.Join(m.alive(), m.readProxy(&now)); err != nil {
			return o, err
		}
		if o.received.Received > received || now.cpu-before.cpu > settleCPU {
			quiet, before = now.at, now
		}
		if o.received.Received >= o.sent.Sent || time.Since(quiet) > patience || now.at.After(deadline) {
			return o, nil
		}
		if err := sleep(ctx, settlePoll); err != nil {
			return o, err
		}
	}
}

// warm sends until every flow has passed, which also tells that the proxy
// listens, and that it is transparent.
func (m *datagramMeasurement) warm(ctx context.Context) error {
	want, rate := m.work.flows, float64(warmRate)
	if m.work.udp.ask {
		want, rate = 1, warmQueryRate // of one after the other
	}
	began, err := m.begin(ctx, rate)
	if err != nil {
		return err
	}
	for deadline := time.Now().Add(probeTimeout); ; {
		r, err := m.ask(ctx, m.receiver(), "stat")
		if err != nil {
			return err
		}
		if r.Flows >= want {
			break
		}
		if time.Now().After(deadline) {
			return m.explain(fmt.Errorf("only %d of %d flows passed %s within %s", r.Flows, want, m.subject.name, probeTimeout))
		}
		if err := errors.Join(m.alive(), sleep(ctx, settlePoll)); err != nil {
			return err
		}
	}
	if m.proxy != nil {
		if m.pids, err = procstat.Proc.Tree(m.proxy.cmd.Process.Pid); err != nil {
			return err
		}
	}
	_, err = m.end(ctx, began, rate)
	return err
}

// trial runs at a rate for a moment.
func (m *datagramMeasurement) trial(ctx context.Context, rate float64, length time.Duration) (o outcome, err error) {
	began, err := m.begin(ctx, rate)
	if err != nil {
		return o, err
	}
	if err := sleep(ctx, length); err != nil {
		return o, err
	}
	return m.end(ctx, began, rate)
}
