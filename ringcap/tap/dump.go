package tap

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"time"

	"github.com/tproxyd/tproxyd/internal/tpacket"
	"github.com/tproxyd/tproxyd/ringcap"
	"github.com/tproxyd/tproxyd/ringcap/pcapng"
)

// DumpQuery selects from the recorder's history: the Last so much, or the
// Window.
type DumpQuery struct {
	Last   time.Duration
	Window ringcap.Window
	Selection
}

// Dump writes a file of the recorder's history to w and returns the number of
// packets in it. It waits until the last packets of the window have come out of
// the rings. Packets are in the order of their times over all interfaces, for
// which what is dumped is held in memory.
func (m *Manager) Dump(ctx context.Context, q DumpQuery, w io.Writer) (int, error) {
	r := m.recorder.Load()
	done, ok := r.use()
	if !ok {
		return 0, ErrNoRecorder
	}
	defer done()
	if q.Last > 0 {
		q.Window = ringcap.Window{From: time.Now().Add(-q.Last), To: time.Now()}
	}
	to := q.Window.To
	if to.IsZero() {
		to = time.Now()
	}
	if d := time.Until(r.complete(to)); d > 0 {
		pause(ctx, d)
	}
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	return m.dump(r, q, "", w)
}

// complete is when everything until a time has come out of the rings.
func (r *recorder) complete(t time.Time) time.Time { return t.Add(r.retire + 50*time.Millisecond) }

// dump writes the file.
func (m *Manager) dump(r *recorder, q DumpQuery, reason string, w io.Writer) (n int, err error) {
	sel, err := newSelector(q.Selection)
	if err != nil {
		return 0, err
	}
	m.reg.update()
	runs := make([][]byte, 0, len(r.rings))
	announced := map[uint64]bool{}
	for _, x := range r.rings {
		d := dumper{m: m, sel: sel, number: x.number, announced: announced}
		var out bytes.Buffer
		packets, err := x.rec.Dump(q.Window, d.pick, &out)
		if err != nil {
			return n, err
		}
		n += packets
		runs = append(runs, out.Bytes())
	}
	file, described := m.dir.header(nil, sel)
	if _, err := w.Write(file); err != nil {
		return 0, fmt.Errorf("write dump: %w", err)
	}
	if err := merge(runs, w); err != nil {
		return 0, fmt.Errorf("write dump: %w", err)
	}
	base := pcapng.Statistics{Start: q.Window.From, Stop: q.Window.To, Comment: "flight recorder"}
	if base.Stop.IsZero() {
		base.Stop = time.Now()
	}
	if reason != "" {
		base.Comment += ": " + reason
	}
	if _, err := w.Write(m.rings.trailer(nil, &m.dir, described, base, true)); err != nil {
		return 0, fmt.Errorf("write dump: %w", err)
	}
	return n, nil
}

// dumper picks packets out of the history of one ring.
type dumper struct {
	m         *Manager
	sel       *selector
	number    uint32
	announced map[uint64]bool
}

func (d *dumper) pick(f ringcap.Packet) (pcapng.Tag, bool) {
	tag := pcapng.Tag{Interface: 2 * d.number}
	l := d.find(f)
	if !d.sel.takes(l, f) {
		return tag, false
	}
	tag.Snap = d.sel.cut(f)
	if l == nil {
		return tag, true
	}
	tag.Interface += uint32(l.side)
	tag.ID = l.flow.id
	if !d.announced[tag.ID] {
		d.announced[tag.ID] = true
		tag.Comment = l.flow.info.Load().comment()
	}
	return tag, true
}

func (d *dumper) find(f tpacket.Frame) *leg {
	var s segment
	if !s.parse(f) {
		return nil
	}
	d.m.reg.mu.RLock()
	defer d.m.reg.mu.RUnlock()
	return d.m.reg.find(&s, f)
}

// merge writes runs of packet blocks as one, in the order of time.
func merge(runs [][]byte, w io.Writer) error {
	for {
		first, at := -1, uint64(0)
		for i, r := range runs {
			if t, ok := blockTime(r); ok && (first < 0 || t < at) {
				first, at = i, t
			}
		}
		if first < 0 {
			return nil
		}
		n, rest := run(runs, first)
		if _, err := w.Write(runs[first][:n]); err != nil {
			return err
		}
		runs[first] = rest
	}
}

// run is how much of one run comes before all others.
func run(runs [][]byte, first int) (n int, rest []byte) {
	limit := ^uint64(0)
	for i, r := range runs {
		if t, ok := blockTime(r); ok && i != first {
			limit = min(limit, t)
		}
	}
	b := runs[first]
	for {
		n += int(binary.NativeEndian.Uint32(b[n+4:]))
		if t, ok := blockTime(b[n:]); !ok || t > limit {
			return n, b[n:]
		}
	}
}

// blockTime is the time of the packet block that a run begins with. Runs are
// our own.
func blockTime(b []byte) (uint64, bool) {
	if len(b) < 20 {
		return 0, false
	}
	ne := binary.NativeEndian
	return uint64(ne.Uint32(b[12:]))<<32 | uint64(ne.Uint32(b[16:])), true
}
