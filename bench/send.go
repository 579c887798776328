package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/tproxyd/tproxyd/bench/procstat"
	"github.com/tproxyd/tproxyd/bench/wire"
	"github.com/tproxyd/tproxyd/internal/lab"
)

// sendShape is what is sent, and where to. What can send super-frames sends
// those; the others send the frames of which they consist.
type sendShape struct {
	frameShape
	ifb bool // to an interface that drops in its driver, and not through a veth
}

const ifbLink = "bench-ifb"

func (s *sendShape) link() string {
	if s.ifb {
		return ifbLink
	}
	return lab.ClientLink
}

// measureSend lets one subject send from the proxy's host as fast as it goes.
// What it has sent is what its interface has counted.
func (s *stage) measureSend(ctx context.Context, w work, sub subject) (out []sample, err error) {
	dir, err := os.MkdirTemp(s.dir, sub.name+"-")
	if err != nil {
		return nil, err
	}
	nl, err := s.lab.Proxy.Netlink()
	if err != nil {
		return nil, err
	}
	defer nl.Close()
	remove, err := prepareSending(nl, w.send.ifb)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, remove()) }()
	command, err := sub.send(sendSpec{link: w.send.link(), dir: dir, work: w})
	if err != nil {
		return nil, err
	}
	p, err := startPinned(ctx, s.lab.Proxy, s.proxyCPU, command...)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, p.stop()) }()
	m := &sendMeasurement{stage: s, work: w, subject: sub, netlink: nl, sender: p}
	return m.run(ctx)
}

// prepareSending makes the ifb, or the neighbour to whom the methods that are
// routed send like the others.
func prepareSending(nl *netlink.Handle, ifb bool) (remove func() error, err error) {
	if ifb {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = ifbLink
		link := &netlink.Ifb{LinkAttrs: attrs}
		if err := errors.Join(nl.LinkAdd(link), nl.LinkSetUp(link)); err != nil {
			return nil, fmt.Errorf("make %s: %w", ifbLink, err)
		}
		return func() error { return nl.LinkDel(link) }, nil
	}
	link, err := nl.LinkByName(lab.ClientLink)
	if err != nil {
		return nil, err
	}
	stranger := &netlink.Neigh{
		LinkIndex: link.Attrs().Index, State: netlink.NUD_PERMANENT,
		IP: strangerIP.AsSlice(), HardwareAddr: net.HardwareAddr(wire.DestinationMAC[:]),
	}
	if err := nl.NeighSet(stranger); err != nil {
		return nil, fmt.Errorf("set neighbour %s: %w", strangerIP, err)
	}
	return func() error { return nl.NeighDel(stranger) }, nil
}

type sendMeasurement struct {
	*stage
	work    work
	subject subject
	netlink *netlink.Handle
	sender  *process
}

// sendPoint is the state of the counters at one moment.
type sendPoint struct {
	at            time.Time
	bytes         uint64
	cpu, softirqd time.Duration
}

func (m *sendMeasurement) run(ctx context.Context) ([]sample, error) {
	if err := m.waitFirst(ctx); err != nil {
		return nil, err
	}
	if err := sleep(ctx, min(maxWarmUp, m.opts.duration/4)); err != nil {
		return nil, err
	}
	from, err := m.read()
	if err != nil {
		return nil, err
	}
	if err := sleep(ctx, m.opts.duration); err != nil {
		return nil, err
	}
	to, err := m.read()
	if err != nil {
		return nil, err
	}
	select {
	case <-m.sender.ended:
		return nil, m.sender.explain(fmt.Errorf("%s ended", m.subject.name))
	default:
	}
	return m.samples(from, to)
}

// waitFirst waits until something is sent.
func (m *sendMeasurement) waitFirst(ctx context.Context) error {
	first, err := m.read()
	for deadline := time.Now().Add(tapOpen); err == nil; {
		var now sendPoint
		if now, err = m.read(); err != nil || now.bytes > first.bytes+uint64(m.work.send.bytes()) {
			return err
		}
		if time.Now().After(deadline) {
			return m.sender.explain(fmt.Errorf("%s sent nothing within %s", m.subject.name, tapOpen))
		}
		err = sleep(ctx, tapPoll)
	}
	return m.sender.explain(err)
}

func (m *sendMeasurement) read() (p sendPoint, err error) {
	link, err := m.netlink.LinkByName(m.work.send.link())
	if err != nil {
		return p, err
	}
	st := link.Attrs().Statistics
	p.bytes = st.TxBytes
	if m.work.send.ifb {
		p.bytes = st.RxBytes // an ifb counts so what was sent to it
	}
	p.at = time.Now()
	pids, err := procstat.Proc.Tree(m.sender.cmd.Process.Pid)
	if err != nil {
		return p, err
	}
	if p.cpu, err = procstat.Proc.CPU(pids); err == nil && m.ksoftirqd != 0 {
		p.softirqd, err = procstat.Proc.CPU([]int{m.ksoftirqd})
	}
	return p, err
}

// samples counts what would be on the wire. Frames that leave whole have one
// header for all segments, and the others one each.
func (m *sendMeasurement) samples(from, to sendPoint) ([]sample, error) {
	shape := m.work.send
	size := float64(shape.size)
	if shape.segments > 1 && m.subject.super() {
		size = float64(shape.bytes()) / float64(shape.segments)
	}
	packets := float64(to.bytes-from.bytes) / size
	if packets == 0 {
		return nil, fmt.Errorf("%s sent nothing", m.subject.name)
	}
	seconds := to.at.Sub(from.at).Seconds()
	cpu := float64(to.cpu - from.cpu + to.softirqd - from.softirqd)
	return []sample{
		{metricThroughput, packets / seconds, "packets/s"},
		{metricCPU, cpu / packets, "ns/packet"},
		{metricPerCPU, packets / cpu * 1e9, "packets/CPU s"},
		{metricBusy, cpu / 1e9 / seconds, "share"},
	}, nil
}
