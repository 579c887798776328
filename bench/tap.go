package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/tproxyd/tproxyd/bench/procstat"
	"github.com/tproxyd/tproxyd/bench/wire"
	"github.com/tproxyd/tproxyd/internal/lab"
)

// tapShape is what a capture sees, and how ours writes it.
type tapShape struct {
	frameShape
	rate      float64 // frames a second, the same for all subjects
	encoding  string
	fileBytes int64 // of one of the files that ours writes over
}

const (
	// tapOpen and tapDrain bound how long a subject may take to begin, and to
	// write what it has captured. Of tapQuiet it may be idle: a packet may wait
	// so long in the ring of tcpdump, whose timeout is a second.
	tapOpen  = 10 * time.Second
	tapDrain = 20 * time.Second
	tapQuiet = 1300 * time.Millisecond
	tapPoll  = 20 * time.Millisecond
	// tapReady is between the bind of a subject's socket and the first frame.
	tapReady = 300 * time.Millisecond
)

// tapMeasurement is one subject that captures what one generator sends.
type tapMeasurement struct {
	*stage
	work      work
	subject   subject
	dir       string
	tap       *process
	generator *process
}

func (s *stage) measureTap(ctx context.Context, w work, sub subject) (out []sample, err error) {
	m := &tapMeasurement{stage: s, work: w, subject: sub}
	defer func() { err = errors.Join(err, m.stop()) }()
	if m.dir, err = os.MkdirTemp(s.opts.captureDir, "tproxyd-bench-"); err != nil {
		return nil, err
	}
	if err := m.start(ctx); err != nil {
		return nil, err
	}
	from, err := m.read(ctx)
	if err != nil {
		return nil, err
	}
	if err := sleep(ctx, m.opts.duration); err != nil {
		return nil, err
	}
	to, err := m.read(ctx)
	if err != nil {
		return nil, err
	}
	sent, held, err := m.finish(ctx)
	if err != nil {
		return nil, err
	}
	return m.samples(from, to, sent, held)
}

func (m *tapMeasurement) start(ctx context.Context) error {
	command, err := m.subject.capture(captureSpec{link: lab.ClientLink, dir: m.dir, work: m.work})
	if err != nil {
		return err
	}
	if m.tap, err = startPinned(ctx, m.lab.Proxy, m.proxyCPU, command...); err != nil {
		return err
	}
	if err := m.waitTap(ctx); err != nil {
		return err
	}
	shape := m.work.tap
	method := "mmsg"
	if shape.segments > 1 {
		method = "gso"
	}
	m.generator, err = startPart(ctx, m.lab.Client, m.clientCPU, partFrames, lab.EndLink, method,
		fmt.Sprint(shape.size), fmt.Sprint(shape.segments), fmt.Sprint(shape.rate))
	if err != nil {
		return err
	}
	var r sentReport
	if err := m.generator.ask(ctx, "", &r); err != nil {
		return err
	}
	return sleep(ctx, min(maxWarmUp, m.opts.duration/2))
}

// waitTap waits until a packet socket is bound to the link: then the subject
// captures, or is about to.
func (m *tapMeasurement) waitTap(ctx context.Context) error {
	path := fmt.Sprintf("/proc/%d/net/packet", m.tap.cmd.Process.Pid)
	for deadline := time.Now().Add(tapOpen); ; {
		b, err := os.ReadFile(path)
		if err == nil && strings.Count(string(b), "\n") > 1 {
			return sleep(ctx, tapReady)
		}
		select {
		case <-m.tap.ended:
			return m.tap.explain(fmt.Errorf("%s ended instead of capturing", m.subject.name))
		default:
		}
		if time.Now().After(deadline) {
			return m.tap.explain(fmt.Errorf("%s does not capture after %s", m.subject.name, tapOpen))
		}
		if err := sleep(ctx, tapPoll); err != nil {
			return err
		}
	}
}

// tapPoint is the state of the counters at one moment.
type tapPoint struct {
	at       time.Time
	sent     uint64
	cpu      time.Duration
	softirqd time.Duration
}

func (m *tapMeasurement) read(ctx context.Context) (p tapPoint, err error) {
	var r sentReport
	if err := m.generator.ask(ctx, "stat", &r); err != nil {
		return p, err
	}
	p.at, p.sent = time.Now(), r.Sent
	p.cpu, err = m.spent()
	if err == nil && m.ksoftirqd != 0 {
		p.softirqd, err = procstat.Proc.CPU([]int{m.ksoftirqd})
	}
	return p, err
}

// spent is the processor time of the subject and its children: dumpcap has none,
// but tshark would.
func (m *tapMeasurement) spent() (time.Duration, error) {
	pids, err := procstat.Proc.Tree(m.tap.cmd.Process.Pid)
	if err != nil {
		return 0, err
	}
	return procstat.Proc.CPU(pids)
}

// finish ends the generator, then the capture, and tells what was sent from
// the beginning on and what was captured of it.
func (m *tapMeasurement) finish(ctx context.Context) (sent uint64, held wire.Held, err error) {
	var r sentReport
	if err := m.generator.ask(ctx, "stop", &r); err != nil {
		return 0, held, err
	}
	if err := m.waitQuiet(ctx); err != nil {
		return 0, held, err
	}
	var captured capturedReport
	if m.subject.asked {
		if err := errors.Join(m.tap.ask(ctx, "", &struct{}{}), m.tap.ask(ctx, "stop", &captured)); err != nil {
			return 0, held, err
		}
	}
	if m.subject.name == ours { // what it wrote first is written over by now
		return r.Sent, wire.Held{Packets: captured.Packets, Bytes: captured.Bytes}, nil
	}
	if err := m.tap.stop(); err != nil {
		return 0, held, err
	}
	held, err = wire.CountDir(m.dir)
	if err == nil && held.Packets == 0 {
		err = m.tap.explain(fmt.Errorf("no frame in the files of %s", m.subject.name))
	}
	return r.Sent, held, err
}

// waitQuiet waits until the subject has nothing left to write.
func (m *tapMeasurement) waitQuiet(ctx context.Context) error {
	last := time.Duration(-1)
	for deadline := time.Now().Add(tapDrain); ; {
		now, err := m.spent()
		if err != nil {
			return m.tap.explain(err)
		}
		if last >= 0 && now-last < tapQuiet/100 {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%s still writes %s after the last frame", m.subject.name, tapDrain)
		}
		last = now
		if err := sleep(ctx, tapQuiet); err != nil {
			return err
		}
	}
}

func (m *tapMeasurement) stop() error {
	var errs []error
	for _, p := range []*process{m.generator, m.tap} {
		if p != nil {
			errs = append(errs, p.stop())
		}
	}
	if m.dir != "" {
		errs = append(errs, os.RemoveAll(m.dir))
	}
	return errors.Join(errs...)
}

func (m *tapMeasurement) samples(from, to tapPoint, sent uint64, held wire.Held) ([]sample, error) {
	shape := m.work.tap
	frames := float64(to.sent - from.sent)
	if frames == 0 {
		return nil, errors.New("the generator sent nothing")
	}
	seconds := to.at.Sub(from.at).Seconds()
	units, unit := frames, "ns/packet"
	throughput := sample{metricThroughput, frames / seconds, "packets/s"}
	scale := 1.0
	if shape.segments > 1 {
		gigabytes := frames * float64(shape.bytes()) / 1e9
		units, unit, scale = gigabytes, "ms/GB", 1e-6
		throughput = sample{metricThroughput, gigabytes * 8 / seconds, "Gbit/s"}
	}
	cpu := float64(to.cpu - from.cpu)
	// The cost is that of what was captured: what is lost costs nothing.
	kept := float64(held.Bytes) / (float64(sent) * float64(shape.bytes()))
	units *= min(1, kept)
	return []sample{
		throughput,
		{metricCPU, cpu * scale / units, unit},
		{metricSoftirqd, float64(to.softirqd-from.softirqd) * scale / units, unit},
		{metricBusy, cpu / 1e9 / seconds, "share"},
		{metricLoss, max(0, 1-kept), "share"},
	}, nil
}
