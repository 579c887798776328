package tap

import (
	"maps"
	"slices"
	"sync"

	"github.com/tproxyd/tproxyd/ringcap"
	"github.com/tproxyd/tproxyd/ringcap/pcapng"
)

// ringTotals are what sinks share: what the rings lost.
type ringTotals struct{ drops, freezes uint64 }

// ring is what rings counts: a source, or one of the recorder's.
type ring struct {
	name     string
	recorder bool
	*ringcap.Ring
}

// ringID names a counter.
type ringID struct {
	name     string
	recorder bool
}

// rings is the rings that there are, and the counts of those that were.
type rings struct {
	mu   sync.Mutex
	live []ring
	past map[ringID]ringcap.Stats
}

func (r *rings) add(x ring) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.live = append(r.live, x)
}

// remove takes out a ring that has ended with its last counts.
func (r *rings) remove(x *ringcap.Ring, last ringcap.Stats) {
	r.mu.Lock()
	defer r.mu.Unlock()
	i := slices.IndexFunc(r.live, func(l ring) bool { return l.Ring == x })
	if i < 0 {
		return
	}
	id := ringID{r.live[i].name, r.live[i].recorder}
	r.past[id] = sum(r.past[id], last)
	r.live = slices.Delete(r.live, i, i+1)
}

func sum(a, b ringcap.Stats) ringcap.Stats {
	return ringcap.Stats{
		Packets: a.Packets + b.Packets, Drops: a.Drops + b.Drops, Freezes: a.Freezes + b.Freezes,
		Taken: a.Taken + b.Taken, Bytes: a.Bytes + b.Bytes, Blocks: a.Blocks + b.Blocks,
		Stale: a.Stale + b.Stale, Downs: a.Downs + b.Downs,
	}
}

// stats are the counts of each interface, by name.
func (r *rings) stats() []InterfaceStats {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := map[ringID]InterfaceStats{}
	for id, s := range r.past {
		all[id] = InterfaceStats{Name: id.name, Recorder: id.recorder, Stats: s}
	}
	for _, l := range r.live {
		id := ringID{l.name, l.recorder}
		s, _ := l.Stats() // what it has counted so far, if the kernel does not answer
		_, blocks := l.Geometry()
		x := all[id]
		x.Name, x.Recorder, x.Stats = id.name, id.recorder, sum(x.Stats, s)
		x.Held, x.Ring = x.Held+l.Held(), x.Ring+blocks
		all[id] = x
	}
	return slices.SortedFunc(maps.Values(all), func(a, b InterfaceStats) int {
		if a.Recorder != b.Recorder {
			return map[bool]int{false: -1, true: 1}[a.Recorder]
		}
		return map[bool]int{true: -1, false: 1}[a.Name < b.Name]
	})
}

// totals are the losses of the rings for captures and viewers.
func (r *rings) totals() (t ringTotals) {
	for _, s := range r.stats() {
		if !s.Recorder {
			t.drops += s.Drops
			t.freezes += s.Freezes
		}
	}
	return t
}

// trailer appends the statistics that end a file, the comment with the first
func (r *rings) trailer(dst []byte, d *directory, described int, base pcapng.Statistics, recorder bool) []byte {
	for _, s := range r.stats() {
		if n := d.number(s.Name); s.Recorder == recorder && int(n) < described {
			base.Interface, base.Accepted, base.Dropped, base.Delivered = 2*n, s.Packets, s.Drops, s.Packets-s.Drops
			dst = pcapng.AppendStatistics(dst, base)
			base.Comment = ""
		}
	}
	return dst
}
