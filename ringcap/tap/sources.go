package tap

import (
	"fmt"
	"os"
	"slices"
	"sync"

	"go.uber.org/zap"
	"golang.org/x/net/bpf"

	"github.com/tproxyd/tproxyd/ringcap"
)

// sourceConfig is what a ring for captures is made with.
func (m *Manager) sourceConfig(cfg Config, name string) ringcap.Config {
	return ringcap.Config{
		Interface: name, BlockSize: cfg.Ring.BlockSize, Blocks: cfg.Ring.Blocks,
		Retire: cfg.Ring.Retire, Timestamp: cfg.Ring.Timestamp, Filter: m.kernelFilter(cfg),
	}
}

// kernelFilter is what the sinks that there are need. A sink that is about to
// begin makes retune, which comes after it.
func (m *Manager) kernelFilter(cfg Config) (program []bpf.RawInstruction) {
	snap, strays := -1, false
	for _, s := range m.sinks.load() {
		n := s.sel.snapLen()
		if n == 0 || snap == 0 {
			snap = 0
		} else {
			snap = max(snap, n)
		}
		strays = strays || s.sel.takesStray()
	}
	return kernelFilter(cfg.Endpoints, max(snap, 0), strays)
}

// openSources opens the rings that are needed beyond those that there are. They
// take packets from now on, and hand them over when they are used.
func (m *Manager) openSources(cfg Config, names []string, have []*source) (opened []*source, err error) {
	for _, name := range names {
		if slices.ContainsFunc(have, func(s *source) bool { return s.fits(cfg, name) }) {
			continue
		}
		more, err := m.openFanout(cfg, name)
		opened = append(opened, more...)
		if err != nil {
			m.stopSources(opened)
			return nil, err
		}
	}
	return opened, nil
}

// fits says whether a source can stay under another configuration.
func (s *source) fits(cfg Config, name string) bool {
	return s.name == name && s.cfg == cfg.Ring && !s.dead.Load()
}

// openFanout opens the rings of one interface.
func (m *Manager) openFanout(cfg Config, name string) (opened []*source, err error) {
	ring := m.sourceConfig(cfg, name)
	if cfg.Ring.Fanout > 1 {
		m.fanouts++
		ring.Fanout = &ringcap.Fanout{ID: uint16(os.Getpid())<<6 + m.fanouts, Mode: cfg.Ring.FanoutMode}
	}
	for range max(cfg.Ring.Fanout, 1) {
		s, err := openSource(ring)
		if err != nil {
			return opened, fmt.Errorf("capture on %s: %w", name, err)
		}
		s.cfg, s.number = cfg.Ring, m.dir.number(name)
		s.log, s.reg, s.sinks = m.log, m.reg, &m.sinks
		opened = append(opened, s)
	}
	return opened, nil
}

// useSources makes some of the sources that there were, and those that were
// opened, the ones that there are. The others end before the new ones begin, so
// that no packet comes twice and none is missing.
func (m *Manager) useSources(keep, opened []*source) {
	if len(opened) == 0 && len(keep) == len(m.sources) {
		m.retune()
		return
	}
	var old []*source
	for _, s := range m.sources {
		if !slices.Contains(keep, s) {
			old = append(old, s)
		}
	}
	m.stopSources(old)
	m.sources = slices.Concat(keep, opened)
	for _, s := range opened {
		for _, o := range old {
			if o.name == s.name {
				s.after = max(s.after, o.newest.Load())
			}
		}
	}
	m.reg.newEpoch(len(m.sources) > 0)
	for _, s := range opened {
		s.settle.Store(int64(m.settle()))
		m.rings.add(ring{s.name, false, s.ring})
		s.start()
	}
	m.retune()
}

// stopSources ends sources, all at a time, and keeps their counts.
func (m *Manager) stopSources(all []*source) {
	var wg sync.WaitGroup
	for _, s := range all {
		wg.Go(func() { m.rings.remove(s.ring, s.stop()) })
	}
	wg.Wait()
}

// retune gives the rings the filter that the sinks need, or ends them if there
// is no sink.
func (m *Manager) retune() {
	if len(m.sinks.load()) == 0 {
		m.stopSources(m.sources)
		m.sources = nil
		m.reg.newEpoch(false)
		m.watch()
		return
	}
	m.watch()
	program := m.kernelFilter(m.cfg)
	for _, s := range m.sources {
		s.settle.Store(int64(m.settle()))
		if err := s.ring.SetFilter(program); err != nil {
			m.log.Error("changing the filter of a ring", zap.String("interface", s.name), zap.Error(err))
		}
	}
}
