package tap

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"go.uber.org/zap"
)

// plan is what a configuration needs that is not there, opened.
type plan struct {
	cfg      Config
	names    []string
	entries  map[string]*entry
	begin    []*capture // not started
	end      []*capture
	opened   []*source
	keep     []*source
	recorder *recorder // the next one, which may be the present one
}

// Apply makes a configuration run, or returns an error and changes nothing.
func (m *Manager) Apply(cfg Config) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return ErrClosed
	}
	p, err := m.plan(cfg)
	if err != nil {
		return fmt.Errorf("apply tap: %w", err)
	}
	return m.commit(p)
}

func (m *Manager) plan(cfg Config) (p *plan, err error) {
	p = &plan{cfg: cfg, entries: map[string]*entry{}}
	if p.names, err = resolve(cfg.Interfaces); err != nil {
		return nil, err
	}
	for _, c := range cfg.Captures {
		if err := m.planCapture(p, c); err != nil {
			return nil, err
		}
	}
	for name, e := range m.captures {
		if p.entries[name] == nil && e.run != nil {
			p.end = append(p.end, e.run)
		}
	}
	if slices.ContainsFunc(p.running(), func(e *entry) bool { return e.wanted }) || len(m.viewers) > 0 {
		if p.opened, err = m.openSources(cfg, p.names, m.sources); err != nil {
			return nil, err
		}
	}
	for _, s := range m.sources {
		if slices.ContainsFunc(p.names, func(n string) bool { return s.fits(cfg, n) }) {
			p.keep = append(p.keep, s)
		}
	}
	if p.recorder, err = m.planRecorder(p); err != nil {
		m.stopSources(p.opened)
		return nil, err
	}
	return p, nil
}

func (p *plan) running() (all []*entry) {
	for _, e := range p.entries {
		all = append(all, e)
	}
	return all
}

// planCapture keeps a capture that is as before, and makes what is new.
func (m *Manager) planCapture(p *plan, c Capture) error {
	switch {
	case c.Name == liveSink:
		return fmt.Errorf("check capture: the name %s stands for viewers", liveSink)
	case c.Name == "" || strings.ContainsAny(c.Name, "/*?[\\"):
		return fmt.Errorf("check capture: name %q is not part of a file name", c.Name)
	case p.entries[c.Name] != nil:
		return fmt.Errorf("check capture: there are two of the name %s", c.Name)
	}
	e := &entry{Capture: c, wanted: !c.Manual}
	p.entries[c.Name] = e
	old := m.captures[c.Name]
	if old != nil && old.Manual == c.Manual {
		e.wanted = old.wanted // what somebody started or stopped stays so
	}
	if old != nil && old.run != nil && e.wanted && reflect.DeepEqual(old.run.Capture, c) {
		e.run = old.run
		return nil
	}
	// Also of one that is not to run: a mistake shows now.
	x, err := newCapture(c, &m.dir, &m.rings, m.log)
	if err != nil {
		return err
	}
	if old != nil && old.run != nil {
		p.end = append(p.end, old.run)
	}
	if e.wanted {
		e.run = x
		p.begin = append(p.begin, x)
	}
	return nil
}

// commit makes the plan run. What can fail has been done, but for the files of
// captures: then the others run nevertheless.
func (m *Manager) commit(p *plan) error {
	if len(p.end) > 0 {
		m.flush() // what ends has everything until now
	}
	m.cfg, m.names, m.captures = p.cfg, p.names, p.entries
	m.dir.setNames(p.cfg.Names)
	for _, c := range p.begin {
		c.sink.ringBase = m.rings.totals()
	}
	// The queues of new captures fill from here on, while those of the old
	// ones are written: both may have the same files.
	m.listSinks()
	m.useSources(p.keep, p.opened)
	for _, c := range p.end {
		m.end(c)
	}
	var errs []error
	for _, c := range p.begin {
		if err := c.start(); err != nil {
			e := m.captures[c.Name]
			e.run, e.err = nil, err
			errs = append(errs, err)
			m.log.Error("starting a capture", zap.String("capture", c.Name), zap.Error(err))
		}
	}
	if len(errs) > 0 {
		m.listSinks()
	}
	m.swapRecorder(p.recorder)
	m.setLinger()
	return errors.Join(errs...)
}
