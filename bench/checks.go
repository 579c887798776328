package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/tproxyd/tproxyd/bench/procstat"
	"github.com/tproxyd/tproxyd/internal/lab"
)

const (
	// checkTime is how long the cost of checks is taken, whatever the length of
	// other measurements: it is ten intervals.
	checkTime = 10 * time.Second
	// checkWarmUp is how long a daemon without checks may take to start.
	checkWarmUp = 2 * time.Second
)

// startChecked starts in the server what the subject's checks go to, if there
// are any.
func (m *measurement) startChecked(ctx context.Context) (err error) {
	if !m.subject.checks {
		return nil
	}
	ports := 1
	if m.work.checks {
		ports = checkedBackends
	}
	m.checked, err = startPart(ctx, m.lab.Server, m.clientCPU, partChecked,
		lab.ServerIP4, strconv.Itoa(firstCheckedPort), strconv.Itoa(ports))
	if err != nil {
		return err
	}
	_, err = m.checksSeen(ctx, "")
	return err
}

// checksSeen is how many checks have come; none to a daemon that makes none.
func (m *measurement) checksSeen(ctx context.Context, command string) (uint64, error) {
	if m.checked == nil {
		return 0, nil
	}
	var r checkedReport
	err := m.checked.ask(ctx, command, &r)
	return r.Accepted, err
}

// measureChecks takes the cost of a daemon that has no clients: what it costs is
// what its checks cost, if there are any.
func (s *stage) measureChecks(ctx context.Context, w work, sub subject) (out []sample, err error) {
	m := &measurement{stage: s, work: w, subject: sub}
	defer func() { err = errors.Join(err, m.stop()) }()
	if err := m.startProxy(ctx); err != nil {
		return nil, err
	}
	if err := m.firstChecks(ctx); err != nil {
		return nil, err
	}
	var begin, end point
	before, err := m.checksSeen(ctx, "stat")
	if err != nil {
		return nil, err
	}
	if err := errors.Join(m.readProxy(&begin), sleep(ctx, m.opts.checkTime), m.alive(), m.readProxy(&end)); err != nil {
		return nil, err
	}
	after, err := m.checksSeen(ctx, "stat")
	if err != nil {
		return nil, err
	}
	c := spent(begin, end)
	share := func(ns float64) float64 { return 100 * ns / 1e9 / c.cpuSeconds }
	out = []sample{
		{metricCPU, share(c.cpuNS), "% of a CPU"},
		{metricSoftirqd, share(c.softirqdNS), "% of a CPU"},
		{metricOthers, c.othersNS / 1e9 / c.cpuSeconds, "share"},
	}
	if sub.checks {
		out = append(out, sample{metricThroughput, float64(after-before) / c.cpuSeconds, "checks/s"})
	}
	return out, nil
}

// firstChecks waits until every backend has been checked, so that what is
// measured is not how the daemon starts; without checks it waits as long as that
// takes.
func (m *measurement) firstChecks(ctx context.Context) (err error) {
	if m.pids, err = procstat.Proc.Tree(m.proxy.cmd.Process.Pid); err != nil {
		return err
	}
	if !m.subject.checks {
		return sleep(ctx, min(checkWarmUp, m.opts.checkTime))
	}
	for deadline := time.Now().Add(probeTimeout); ; {
		seen, err := m.checksSeen(ctx, "stat")
		if err != nil || seen > 2*checkedBackends {
			return err
		}
		if time.Now().After(deadline) {
			return m.explain(fmt.Errorf("only %d checks came within %s", seen, probeTimeout))
		}
		if err := errors.Join(m.alive(), sleep(ctx, settlePoll)); err != nil {
			return err
		}
	}
}
