package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// measureAll does all rounds. Failed measurements are in the report; an error
// means that there is none.
func measureAll(ctx context.Context, opts *options, progress io.Writer) (r *report, err error) {
	var subjects []subject
	r = &report{Env: environment{Versions: map[string]string{}}}
	for _, name := range opts.subjects {
		sub, err := subjectByName(name)
		if err != nil {
			return nil, err
		}
		if sub.version != nil && slices.ContainsFunc(opts.works, sub.does) {
			if r.Env.Versions[name], err = sub.version(ctx, opts); err != nil {
				return nil, err
			}
		}
		subjects = append(subjects, sub)
	}
	s, err := newStage(opts)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	if err := s.pinSelf(); err != nil {
		return nil, err
	}
	if err := s.describe(&r.Env); err != nil {
		return nil, err
	}
	if s.proxyCPU == s.clientCPU {
		fmt.Fprintln(progress, "only one processor is to be had: the proxy shares it with clients and backend")
	}
	run := &session{stage: s, subjects: subjects, progress: progress, report: r, all: newCollector(), common: map[string]float64{}}
	for round := range opts.rounds {
		for _, w := range opts.works {
			if err := run.round(ctx, round, w); err != nil {
				return nil, err
			}
		}
	}
	var names []string
	for _, w := range opts.works {
		names = append(names, w.name)
	}
	r.Results = run.all.results(names, opts.subjects)
	r.Ratios = ratios(r.Results)
	return r, nil
}

func summary(samples []sample) string {
	var parts []string
	for _, s := range samples {
		parts = append(parts, fmt.Sprintf("%s %s %s", s.metric, number(s.value), s.unit))
	}
	return strings.Join(parts, ", ")
}

// pinSelf keeps this program, and the threads it will start, off the proxy's
// processor.
func (s *stage) pinSelf() error {
	var set unix.CPUSet
	set.Set(s.clientCPU)
	entries, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return err
	}
	for _, e := range entries {
		tid, err := strconv.Atoi(e.Name())
		if err != nil {
			return err
		}
		if err := unix.SchedSetaffinity(tid, &set); err != nil && !errors.Is(err, unix.ESRCH) {
			return os.NewSyscallError("sched_setaffinity", err)
		}
	}
	return nil
}

func (s *stage) describe(env *environment) error {
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		return os.NewSyscallError("uname", err)
	}
	info, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(info)) {
		if name, value, found := strings.Cut(line, ":"); found && strings.TrimSpace(name) == "model name" {
			env.CPU = strings.TrimSpace(value)
			break
		}
	}
	env.Kernel = unix.ByteSliceToString(uts.Release[:])
	env.Arch = runtime.GOARCH
	env.CPUs = runtime.NumCPU()
	env.ProxyCPU, env.ClientCPU = s.proxyCPU, s.clientCPU
	env.Rounds = s.opts.rounds
	env.Duration = s.opts.duration.Seconds()
	env.Source = s.opts.source
	env.Buffer = permittedBuffer()
	return nil
}

// permittedBuffer is what a proxy without CAP_NET_ADMIN gets of receiveBuffer.
func permittedBuffer() int {
	b, err := os.ReadFile("/proc/sys/net/core/rmem_max")
	if err != nil {
		return receiveBuffer // not to be seen here
	}
	most, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return receiveBuffer
	}
	return min(most, receiveBuffer)
}
