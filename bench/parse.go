package main

import (
	"context"
	"errors"
	"time"

	"github.com/tproxyd/tproxyd/bench/procstat"
)

// measureParse takes the time of a walk over the frames of a block.
func (s *stage) measureParse(ctx context.Context) (out []sample, err error) {
	p, err := startPart(ctx, s.lab.Proxy, s.proxyCPU, partParse)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, p.stop()) }()
	pids := []int{p.cmd.Process.Pid}
	read := func(command string) (r parsedReport, cpu time.Duration, err error) {
		if err := p.ask(ctx, command, &r); err != nil {
			return r, 0, err
		}
		cpu, err = procstat.Proc.CPU(pids)
		return r, cpu, err
	}
	from, cpu0, err := read("")
	if err != nil {
		return nil, err
	}
	if err := sleep(ctx, s.opts.duration); err != nil {
		return nil, err
	}
	to, cpu1, err := read("stat")
	if err != nil {
		return nil, err
	}
	frames := float64(to.Frames - from.Frames)
	if frames == 0 {
		return nil, errors.New("no frame was parsed")
	}
	return []sample{
		{metricCPU, float64(cpu1-cpu0) / frames, "ns/frame"},
		{metricMallocs, float64(to.Mallocs-from.Mallocs) / frames, "1/frame"},
	}, nil
}
