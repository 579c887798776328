package tap

import (
	"context"
	"fmt"
	"io"
	"time"
)

// Query is what a viewer wants.
type Query struct {
	Name string // in Stats
	Selection
	Wire  bool
	Count int // packets, without an end if 0
}

// Live writes what is captured to w until ctx ends, there were Count packets, w
// fails, or the Manager is closed. When w is too slow whole blocks are lost,
// and the stream says so.
func (m *Manager) Live(ctx context.Context, q Query, w io.Writer) error {
	sel, err := newSelector(q.Selection)
	if err != nil {
		return fmt.Errorf("check viewer: %w", err)
	}
	v := &viewer{sink: newSink(q.Name, sel, q.Wire, &m.dir), out: w, count: q.Count}
	if err := m.addViewer(v.sink); err != nil {
		return err
	}
	err = v.run(ctx)
	m.removeViewer(v.sink)
	return err
}

// viewer writes one stream.
type viewer struct {
	sink  *sink
	out   io.Writer
	count int

	sent                    int
	toldPackets, toldBlocks uint64
	since                   time.Time
}

func (v *viewer) run(ctx context.Context) error {
	v.since = time.Now()
	var head []byte
	head, v.sink.described = v.sink.dir.header(nil, v.sink.sel)
	if err := v.write(head); err != nil {
		return err
	}
	for v.count == 0 || v.sent < v.count {
		it, ok := v.sink.take(ctx, nil)
		if !ok {
			return nil
		}
		if err := v.item(it); err != nil {
			return err
		}
	}
	return nil
}

func (v *viewer) item(it item) error {
	if err := v.tellLoss(); err != nil {
		if it.batch != nil {
			v.sink.lose(it.batch)
		}
		return err
	}
	if it.event != nil {
		return v.write(v.sink.event(it.event))
	}
	if int(it.batch.from.number) >= v.sink.described {
		var more []byte
		more, v.sink.described = v.sink.dir.more(nil, v.sink.sel, v.sink.described)
		if err := v.write(more); err != nil {
			v.sink.lose(it.batch)
			return err
		}
	}
	if v.count > 0 {
		v.sink.limit = v.count - v.sent
	}
	run, n := v.sink.encode(it.batch)
	it.batch.release()
	if n == 0 {
		return nil
	}
	if err := v.write(run); err != nil {
		v.sink.dropped.Add(uint64(n))
		return err
	}
	v.sent += n
	v.sink.packets.Add(uint64(n))
	v.sink.bytes.Add(uint64(len(run)))
	return nil
}

// tellLoss says in the stream that there is a hole.
func (v *viewer) tellLoss() error {
	p, b := v.sink.dropped.Load(), v.sink.droppedBlocks.Load()
	if p == v.toldPackets {
		return nil
	}
	err := v.write(v.sink.lost(p-v.toldPackets, b-v.toldBlocks, v.since))
	v.toldPackets, v.toldBlocks, v.since = p, b, time.Now()
	return err
}

func (v *viewer) write(b []byte) error {
	if _, err := v.out.Write(b); err != nil {
		return fmt.Errorf("write to viewer: %w", err)
	}
	return nil
}
