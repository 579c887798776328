package tap

import (
	"fmt"
	"strings"
	"time"

	"github.com/tproxyd/tproxyd/internal/tpacket"
	"github.com/tproxyd/tproxyd/ringcap/pcapng"
)

// maxAnnounced is how many flows an encoder remembers to have commented.
const maxAnnounced = 1 << 16

// encoder makes batches into runs of packet blocks. It belongs to the sink's
// goroutine.
type encoder struct {
	sel *selector
	dir *directory
	enc pcapng.Encoder
	buf []byte

	described int             // interfaces that the file or stream has
	announced map[uint64]bool // with the backend

	limit int // packets to take of the next batch, 0 is all
	taken int

	// While a batch is encoded:
	batch *batch
	frame int
	last  verdict
}

// verdict is the last flow's, as the next packet mostly is of the same.
type verdict struct {
	flow *flow
	info *Flow
	take bool
	told bool // with the backend
}

func (e *encoder) init(sel *selector, wire bool, d *directory) {
	e.sel, e.dir, e.announced = sel, d, map[uint64]bool{}
	e.enc = pcapng.Encoder{Wire: wire, Pick: e.pick}
}

// encode returns what of a batch is taken, good until the next call.
func (e *encoder) encode(b *batch) (run []byte, packets int) {
	e.batch, e.frame, e.taken = b, 0, 0
	view := b.view()
	e.buf = e.enc.Copy(e.buf[:0], &view)
	e.batch = nil
	return e.buf, e.enc.Packets()
}

func (e *encoder) pick(f tpacket.Frame) (pcapng.Tag, bool) {
	l := e.batch.legs[e.frame]
	e.frame++
	tag := pcapng.Tag{Interface: 2 * e.batch.from.number}
	switch {
	case l == repeated:
		return tag, false
	case l == nil:
		if !e.sel.takesStray() || !e.sel.takesFrame(f) {
			return tag, false
		}
	case !e.takes(l.flow) || !e.sel.takesFrame(f):
		return tag, false
	default:
		e.tag(&tag, l)
	}
	if e.taken++; e.limit > 0 && e.taken > e.limit {
		return tag, false
	}
	tag.Snap = e.sel.cut(f)
	return tag, true
}

func (e *encoder) takes(f *flow) bool {
	info := f.info.Load()
	if e.last.flow != f || e.last.info != info {
		e.last = verdict{flow: f, info: info, take: e.sel.takesFlow(info)}
	}
	return e.last.take
}

// tag names the flow of a packet, and tells about it on the first, and once
// more if the backend was chosen later.
func (e *encoder) tag(tag *pcapng.Tag, l *leg) {
	tag.Interface += uint32(l.side)
	tag.ID = l.flow.id
	if e.last.told {
		return
	}
	whole, told := e.announced[tag.ID]
	if e.last.told = whole; whole {
		return
	}
	info := e.last.info
	if whole = info.Backend != ""; told && !whole {
		return
	}
	if len(e.announced) >= maxAnnounced {
		clear(e.announced)
	}
	e.announced[tag.ID], e.last.told = whole, whole
	tag.Comment = info.comment()
}

// forget makes the encoder tell about every flow once more.
func (e *encoder) forget() {
	clear(e.announced)
	e.last = verdict{}
}

// event is an event as a packet without bytes.
func (e *encoder) event(ev *Event) []byte {
	e.buf = pcapng.AppendPacket(e.buf[:0], &pcapng.Packet{Nanos: ev.Time.UnixNano(), ID: ev.Flow, Comment: ev.comment()})
	return e.buf
}

// lost says in the stream how much of it is missing.
func (e *encoder) lost(packets, blocks uint64, since time.Time) []byte {
	e.buf = pcapng.AppendStatistics(e.buf[:0], pcapng.Statistics{
		Start: since, Stop: time.Now(), Accepted: packets, Dropped: packets,
		Comment: fmt.Sprintf("%d packets in %d blocks were lost here: reading or writing this was too slow", packets, blocks),
	})
	return e.buf
}

// comment is what the first packet of a flow says.
func (f *Flow) comment() string {
	var b strings.Builder
	fmt.Fprintf(&b, "flow %d of service %s: %v to %v", f.ID, f.Service, f.Client, f.Destination)
	if f.Backend != "" {
		fmt.Fprintf(&b, ", backend %s %v", f.Backend, f.Upstream)
	}
	for _, p := range [...]struct{ what, value string }{{"by", f.Algorithm}, {"because", f.Why}, {"source", f.Policy}} {
		if p.value != "" {
			fmt.Fprintf(&b, ", %s %s", p.what, p.value)
		}
	}
	return b.String()
}

func (e *Event) comment() string {
	var b strings.Builder
	b.WriteString(e.Kind)
	for _, p := range [...]struct{ what, value string }{{"service", e.Service}, {"backend", e.Backend}} {
		if p.value != "" {
			fmt.Fprintf(&b, ", %s %s", p.what, p.value)
		}
	}
	if e.Client.IsValid() {
		fmt.Fprintf(&b, ", client %v", e.Client)
	}
	if e.Text != "" {
		b.WriteString(": " + e.Text)
	}
	return b.String()
}
