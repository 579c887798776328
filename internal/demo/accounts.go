package demo

import (
	"context"
	"fmt"
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
		} {
			d.out.say("%-34s %12.0f", name, m.sum(name))
		}
		d.out.say("last access record: %s", d.daemon.records.last())
	}
	d.out.check("metrics_exact", err == nil,
		"the client made %d connections, the daemon counts %.0f and %.0f ended, and each byte of its access records%s",
		d.dials.Load(), total, closed, because(err))
	d.descriptors(ctx)
}

// settled says what does not agree yet.
func (d *demo) settled(m metrics) error {
	total, closed := m.sum("tproxyd_connections_total"), m.sum("tproxyd_connections_closed_total")
	active := m.sum("tproxyd_connections_active")
	if dials := float64(d.dials.Load()); total != dials || closed != dials || active != 0 {
		return fmt.Errorf("%v connections made, %v counted, %v ended, %v active", dials, total, closed, active)
	}
	list, err := d.daemon.records.all()
	if err != nil {
		return final{err}
	}
	var bytes uint64
	for _, r := range list {
		bytes += r.BytesIn + r.BytesOut
	}
	if counted := m.sum("tproxyd_bytes_total"); uint64(len(list)) != d.dials.Load() || float64(bytes) != counted {
		return fmt.Errorf("%d connections made, %d records, with %d bytes of %.0f counted", d.dials.Load(), len(list), bytes, counted)
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
		if open.listeners == 0 || open.sockets > 0 {
			return fmt.Errorf("%d sockets are open", open.sockets)
		}
		return nil
	})
	d.out.check("descriptors", err == nil, "after %d connections: %d listeners, %d other sockets, %d pipe ends in the pool%s",
		d.dials.Load(), open.listeners, open.sockets, open.pipes, because(err))
}
