package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/tproxyd/tproxyd/bench/load"
	"github.com/tproxyd/tproxyd/bench/procstat"
)

const (
	probeTimeout = 10 * time.Second
	stallTimeout = 10 * time.Second
	maxWarmUp    = time.Second
	// idleWarmUp is how many connections come and go before idle ones are
	// counted, so that what a proxy needs once is not counted.
	idleWarmUp = 20
	// settleStep and settleTimeout: memory counts when two readings one step
	// apart are equal.
	settleStep    = 250 * time.Millisecond
	settleTimeout = 20 * time.Second
)

// measurement is one subject at one work: a backend, a proxy and a client.
type measurement struct {
	*stage
	work    work
	subject subject
	backend *process
	proxy   *process // nil without a proxy
	shadow  *process // what flows are copied to; nil without
	checked *process // what health checks go to; nil without
	pids    []int    // of the proxy and its children
}

// measure does one measurement from an empty stage to an empty stage.
func (s *stage) measure(ctx context.Context, w work, sub subject) (out []sample, err error) {
	m := &measurement{stage: s, work: w, subject: sub}
	defer func() { err = errors.Join(err, m.stop()) }()
	if err := m.start(ctx); err != nil {
		return nil, err
	}
	if w.mode == load.Idle {
		return m.measureIdle(ctx)
	}
	return m.measureLoad(ctx)
}

func (m *measurement) start(ctx context.Context) (err error) {
	if m.backend, err = m.startBackend(ctx); err != nil {
		return err
	}
	var listens load.BackendReport
	if err := m.backend.ask(ctx, "", &listens); err != nil {
		return err
	}
	if err := m.startProxy(ctx); err != nil {
		return err
	}
	return m.probe(ctx)
}

// startProxy starts it, if there is one. It may not listen yet.
func (m *measurement) startProxy(ctx context.Context) error {
	if m.subject.command == nil {
		return nil
	}
	if err := m.startChecked(ctx); err != nil {
		return err
	}
	if err := m.startShadow(ctx); err != nil {
		return err
	}
	dir, err := os.MkdirTemp(m.dir, m.subject.name+"-")
	if err != nil {
		return err
	}
	command, err := m.subject.command(m.opts, dir, m.work)
	if err != nil {
		return err
	}
	m.proxy, err = startPinned(ctx, m.lab.Proxy, m.proxyCPU, command...)
	return err
}

// probe waits until an exchange works, and has the backend tell that it saw
// the client's own address.
func (m *measurement) probe(ctx context.Context) error {
	target, source := m.target(m.subject, exchangeService), m.clients[0].String()
	probe, err := startPart(ctx, m.lab.Client, m.clientCPU, partProbe, target, source, probeTimeout.String())
	if err != nil {
		return err
	}
	var proxyEnded chan struct{} // nil, which is never ready, without a proxy
	if m.proxy != nil {
		proxyEnded = m.proxy.ended
	}
	select {
	case <-probe.ended:
	case <-proxyEnded:
		return errors.Join(m.proxy.explain(fmt.Errorf("%s ended instead of serving", m.subject.name)), probe.stop())
	}
	if probe.err != nil {
		return m.explain(probe.explain(fmt.Errorf("probe %s", m.subject.name)))
	}
	if m.proxy != nil {
		if m.pids, err = procstat.Proc.Tree(m.proxy.cmd.Process.Pid); err != nil {
			return err
		}
	}
	_, err = m.backendStat(ctx)
	return err
}

// explain adds to an error what the proxy said, if there is one.
func (m *measurement) explain(err error) error {
	if m.proxy == nil {
		return err
	}
	return m.proxy.explain(err)
}

// backendStat asks the backend for its counters, which may not show an error.
func (m *measurement) backendStat(ctx context.Context) (r load.BackendReport, err error) {
	if err := m.backend.ask(ctx, "stat", &r); err != nil {
		return r, err
	}
	switch {
	case r.Errors > 0:
		return r, fmt.Errorf("%d errors, the first: %s", r.Errors, r.FirstError)
	case r.Foreign > 0:
		return r, fmt.Errorf("%d of %d connections reached the backend from %s, which is no client's address: %s is not transparent",
			r.Foreign, r.Accepted, r.ForeignPeer, m.subject.name)
	case r.Accepted == 0:
		return r, errors.New("an exchange succeeded without reaching the backend")
	}
	return r, nil
}

func (m *measurement) stop() error {
	var errs []error
	for _, p := range []*process{m.proxy, m.checked, m.shadow, m.backend} {
		if p != nil {
			errs = append(errs, p.stop())
		}
	}
	return errors.Join(errs...)
}

// alive tells whether the proxy is.
func (m *measurement) alive() error {
	if m.proxy == nil {
		return nil
	}
	select {
	case <-m.proxy.ended:
		return m.proxy.explain(fmt.Errorf("%s ended", m.subject.name))
	default:
		return nil
	}
}

// startClient starts a client and waits until each of its flows works.
func (m *measurement) startClient(ctx context.Context, mode load.Mode, svc service, flows int) (*process, error) {
	client, err := startPart(ctx, m.lab.Client, m.clientCPU,
		partClient, string(mode), m.target(m.subject, svc), fmt.Sprint(flows), formatAddrs(m.clients))
	if err != nil {
		return nil, err
	}
	if _, err := m.clientStat(ctx, client, ""); err != nil {
		return nil, errors.Join(err, client.stop())
	}
	return client, nil
}

// clientStat sends a command to a client, whose answer may not show an error.
func (m *measurement) clientStat(ctx context.Context, client *process, command string) (r load.ClientReport, err error) {
	if err := client.ask(ctx, command, &r); err != nil {
		return r, err
	}
	if r.Errors > 0 {
		err = m.explain(fmt.Errorf("%d errors, the first: %s", r.Errors, r.FirstError))
	}
	return r, err
}

// finishClient lets the client come to its end, which compares the totals.
func (m *measurement) finishClient(ctx context.Context, client *process) error {
	_, err := m.clientStat(ctx, client, "stop")
	if err == nil {
		_, err = m.backendStat(ctx)
	}
	return err
}

// point is the state of all counters at one moment.
type point struct {
	at       time.Time
	client   load.ClientReport
	backend  load.BackendReport
	cpu      time.Duration
	softirqd time.Duration
	busy     time.Duration // the proxy's processor
}

// read takes the counters; the proxy's, which weigh most, next to the time.
func (m *measurement) read(ctx context.Context, client *process, command string) (p point, err error) {
	if p.client, err = m.clientStat(ctx, client, command); err != nil {
		return p, err
	}
	if p.backend, err = m.backendStat(ctx); err != nil {
		return p, err
	}
	return p, m.readProxy(&p)
}

// readProxy takes the counters of the proxy and its processor.
func (m *measurement) readProxy(p *point) (err error) {
	p.at = time.Now()
	if m.proxy == nil {
		return nil
	}
	if p.cpu, err = procstat.Proc.CPU(m.pids); err != nil {
		return fmt.Errorf("read processor time of %s: %w", m.subject.name, err)
	}
	if m.ksoftirqd != 0 {
		if p.softirqd, err = procstat.Proc.CPU([]int{m.ksoftirqd}); err != nil {
			return fmt.Errorf("read processor time of ksoftirqd: %w", err)
		}
	}
	p.busy, err = procstat.Proc.Busy(m.proxyCPU)
	return err
}

func (m *measurement) measureLoad(ctx context.Context) (out []sample, err error) {
	client, err := m.startClient(ctx, m.work.mode, m.work.service, m.work.flows)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, client.stop()) }()
	if err := sleep(ctx, min(maxWarmUp, m.opts.duration/2)); err != nil {
		return nil, err
	}
	begin, err := m.read(ctx, client, "begin")
	if err != nil {
		return nil, err
	}
	c, copied, err := m.shadowed(ctx, func() (counted, error) { return m.window(ctx, client, begin) })
	if err != nil {
		return nil, err
	}
	if err := m.finishClient(ctx, client); err != nil {
		return nil, err
	}
	return append(m.work.samples(c, m.proxy != nil), copied...), nil
}

// window measures for the time that was asked for, and longer where so little
// time is given to us that nothing was finished in it.
func (m *measurement) window(ctx context.Context, client *process, begin point) (c counted, err error) {
	for {
		if err := sleep(ctx, m.opts.duration); err != nil {
			return c, err
		}
		end, err := m.read(ctx, client, "stat")
		if err != nil {
			return c, err
		}
		c = between(begin, end, m.work.mode)
		if c.operations > 0 || c.bytes > 0 {
			return c, nil
		}
		if took := end.at.Sub(begin.at); took > max(stallTimeout, m.opts.duration) {
			return c, fmt.Errorf("nothing was finished in %s", took)
		}
	}
}

// between is what happened from one point to another, by the clock of the
// process that counts the units.
func between(begin, end point, mode load.Mode) counted {
	c := spent(begin, end)
	c.seconds = float64(end.client.TimeNS-begin.client.TimeNS) / 1e9
	switch mode {
	case load.Up:
		c.bytes = end.backend.Bytes - begin.backend.Bytes
		c.seconds = float64(end.backend.TimeNS-begin.backend.TimeNS) / 1e9
	case load.Down:
		c.bytes = end.client.Bytes - begin.client.Bytes
	case load.KeepAlive, load.Connect, load.Idle:
		c.operations = end.client.Operations - begin.client.Operations
		c.p50NS, c.p99NS = end.client.P50NS, end.client.P99NS
	}
	return c
}

// spent is the time of the proxy's processor from one point to another.
func spent(begin, end point) counted {
	c := counted{
		cpuNS:      float64(end.cpu - begin.cpu),
		softirqdNS: float64(end.softirqd - begin.softirqd),
		cpuSeconds: end.at.Sub(begin.at).Seconds(),
	}
	c.othersNS = max(0, float64(end.busy-begin.busy)-c.cpuNS-c.softirqdNS)
	return c
}

// measureIdle compares the proxy with and without resting connections. It needs
// a proxy.
func (m *measurement) measureIdle(ctx context.Context) (out []sample, err error) {
	warm, err := m.startClient(ctx, load.KeepAlive, exchangeService, idleWarmUp)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(m.finishClient(ctx, warm), warm.stop()); err != nil {
		return nil, err
	}
	memory0, fds0, err := m.settle(ctx)
	if err != nil {
		return nil, err
	}
	flows := m.opts.idleFlows
	client, err := m.startClient(ctx, load.Idle, m.work.service, flows)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, client.stop()) }()
	memory, fds, err := m.settle(ctx)
	if err != nil {
		return nil, err
	}
	if err := m.finishClient(ctx, client); err != nil { // every flow still answers
		return nil, err
	}
	return []sample{
		{metricMemory, float64(memory-memory0) / float64(flows), "B/connection"},
		{metricFDs, float64(fds-fds0) / float64(flows), "1/connection"},
	}, nil
}

// settle waits until the proxy's memory and descriptors stay the same.
func (m *measurement) settle(ctx context.Context) (memory int64, fds int, err error) {
	memory, fds = -1, -1
	for deadline := time.Now().Add(settleTimeout); time.Now().Before(deadline); {
		mem, err := procstat.Proc.Memory(m.pids)
		if err != nil {
			return 0, 0, fmt.Errorf("read memory of %s: %w", m.subject.name, err)
		}
		n, err := procstat.Proc.Descriptors(m.pids)
		if err != nil {
			return 0, 0, fmt.Errorf("count descriptors of %s: %w", m.subject.name, err)
		}
		if mem == memory && n == fds {
			return memory, fds, nil
		}
		memory, fds = mem, n
		if err := sleep(ctx, settleStep); err != nil {
			return 0, 0, err
		}
	}
	return 0, 0, fmt.Errorf("memory of %s still changes after %s", m.subject.name, settleTimeout)
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
