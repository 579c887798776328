package tap

import (
	"maps"
	"slices"
	"strings"

	"github.com/tproxyd/tproxyd/ringcap"
)

// CaptureStatus is one capture.
type CaptureStatus struct {
	Capture
	Running      bool
	CaptureStats // cumulative
	Files        int64
	Events       uint64 // written since it was started
	// LastError is why it does not run, or of writing; nil when that goes on.
	LastError error
}

// CaptureStats are counts of one capture or viewer. RingDrops and Freezes are
// of all rings while it ran.
type CaptureStats struct {
	Name                          string
	Packets, Bytes                uint64 // written
	RingDrops, Freezes, SinkDrops uint64
}

func (a CaptureStats) plus(b CaptureStats) CaptureStats {
	return CaptureStats{
		Name: b.Name, Packets: a.Packets + b.Packets, Bytes: a.Bytes + b.Bytes,
		RingDrops: a.RingDrops + b.RingDrops, Freezes: a.Freezes + b.Freezes, SinkDrops: a.SinkDrops + b.SinkDrops,
	}
}

// InterfaceStats are counts of an interface's rings, those of before included.
type InterfaceStats struct {
	Name          string
	Recorder      bool
	ringcap.Stats     // cumulative
	Held, Ring    int // blocks that the kernel cannot fill, of so many
}

// Stats are counts since New.
type Stats struct {
	Captures            []CaptureStats
	Viewers             []CaptureStats // now
	Viewed              CaptureStats   // of all viewers that there were
	Interfaces          []InterfaceStats
	Flows               int    // known
	Forgotten           uint64 // things that the proxy told and there was no room for
	Dumps, DumpsRefused uint64 // files that triggers wrote, and that came too often
}

// statsOf are the counts of a sink that is there.
func (m *Manager) statsOf(s *sink) CaptureStats {
	c, t := s.stats(), m.rings.totals()
	c.RingDrops, c.Freezes = t.drops-s.ringBase.drops, t.freezes-s.ringBase.freezes
	return c
}

// Stats returns all counts.
func (m *Manager) Stats() Stats {
	s := Stats{
		Interfaces: m.rings.stats(), Flows: m.reg.len(), Forgotten: m.reg.forgotten.Load(),
		Dumps: m.dumps.Load(), DumpsRefused: m.refused.Load(),
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.pastMu.Lock()
	defer m.pastMu.Unlock()
	all := maps.Clone(m.past)
	for name, e := range m.captures {
		now := CaptureStats{Name: name}
		if e.run != nil {
			now = m.statsOf(e.run.sink)
		}
		all[name] = all[name].plus(now)
	}
	s.Captures = slices.SortedFunc(maps.Values(all), func(a, b CaptureStats) int { return strings.Compare(a.Name, b.Name) })
	for _, v := range m.viewers {
		s.Viewers = append(s.Viewers, m.statsOf(v))
	}
	s.Viewed = m.viewed
	return s
}

// List lists the captures that are configured, by name.
func (m *Manager) List() []CaptureStatus {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.pastMu.Lock()
	defer m.pastMu.Unlock()
	var all []CaptureStatus
	for name, e := range m.captures {
		s := CaptureStatus{Capture: e.Capture, LastError: e.err}
		now := CaptureStats{Name: name}
		if e.run != nil {
			s, now = e.run.status(), m.statsOf(e.run.sink)
		}
		s.CaptureStats = m.past[name].plus(now)
		all = append(all, s)
	}
	slices.SortFunc(all, func(a, b CaptureStatus) int { return strings.Compare(a.Capture.Name, b.Capture.Name) })
	return all
}
