package demo

import (
	"context"
	"fmt"
	"runtime"
)

// accounts compares what the daemon counted with what the client did.
func (d *demo) accounts(ctx context.Context) {
	d.out.step("Metrics and access records")
	var m metrics
	err := d.eventually(ctx, func() (err error) {
		if m, err = scrape(ctx); err != nil {
			return err
		}
		return d.settled(m)
	})
	total, closed := m.sum("tproxyd_connections_total"), m.sum("tproxyd_connections_closed_total")
	if err == nil {
		for _, name := range []string{
			"tproxyd_connections_total", "tproxyd_connections_closed_total", "tproxyd_bytes_total", "tproxyd_backend_connections_total",
			"tproxyd_udp_flows_total", "tproxyd_datagrams_total",
		} {
			d.out.say("%-34s %12.0f", name, m.sum(name))
		}
		d.out.say("last access record: %s", d.daemon.records.last())
	}
	d.out.check("metrics_exact", err == nil,
		"the client made %d connections, the daemon counts %.0f and %.0f ended, %d questions, the daemon counts %.0f flows, and each byte of its access records%s",
		d.dials.Load(), total, closed, d.questions.Load(), m.sum("tproxyd_udp_flows_total"), because(err))
	d.descriptors(ctx)
}

// settled says what does not agree yet.
func (d *demo) settled(m metrics) error {
	total, closed := m.sum("tproxyd_connections_total"), m.sum("tproxyd_connections_closed_total")
	active := m.sum("tproxyd_connections_active")
	if dials := float64(d.dials.Load()); total != dials || closed != dials || active != 0 {
		return fmt.Errorf("%v connections made, %v counted, %v ended, %v active", dials, total, closed, active)
	}
	flows, live := m.sum("tproxyd_udp_flows_total"), m.sum("tproxyd_udp_flows_active")
	datagrams := m.sum("tproxyd_datagrams_total")
	if asked := float64(d.questions.Load()); flows != asked || live != 0 || datagrams != 2*asked {
		return fmt.Errorf("%v questions asked, %v flows counted, %v active, %v datagrams", asked, flows, live, datagrams)
	}
	list, err := d.daemon.records.all()
	if err != nil {
		return final{err}
	}
	return d.recorded(list, m.sum("tproxyd_bytes_total"))
}

// recorded says what the access records lack.
func (d *demo) recorded(list []record, counted float64) error {
	of := map[string]uint64{}
	var bytes uint64
	for _, r := range list {
		of[r.Protocol]++
		bytes += r.BytesIn + r.BytesOut
		if r.Protocol == "udp" && (r.DatagramsIn != 1 || r.DatagramsOut != 1) {
			return final{fmt.Errorf("the record of flow %s has %d datagrams in and %d out, want 1 each", r.FlowID, r.DatagramsIn, r.DatagramsOut)}
		}
	}
	if of["tcp"] != d.dials.Load() || of["udp"] != d.questions.Load() || float64(bytes) != counted {
		return fmt.Errorf("%d connections made and %d questions asked, %v records, with %d bytes of %.0f counted",
			d.dials.Load(), d.questions.Load(), of, bytes, counted)
	}
	return nil
}

// descriptors looks for sockets that the daemon has not closed: of all its
// sockets only listeners are to be left.
func (d *demo) descriptors(ctx context.Context) {
	var open descriptors
	err := d.eventually(ctx, func() (err error) {
		if open, err = d.daemon.descriptors(); err != nil {
			return err
		}
		// A worker has at most two raw sockets for replies and two for errors.
		if open.listeners == 0 || open.sockets > 0 || open.raw > 4*runtime.NumCPU() {
			return fmt.Errorf("%d sockets and %d raw ones are open", open.sockets, open.raw)
		}
		return nil
	})
	d.out.check("descriptors", err == nil, "after %d connections and %d UDP flows: %d listeners, %d raw sockets, %d others, %d pipe ends in the pool%s",
		d.dials.Load(), d.questions.Load(), open.listeners, open.raw, open.sockets, open.pipes, because(err))
}
