package config

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// fileTime is how long one file may be written to.
var fileTime = span{zero: true, least: time.Second, most: year}

// fileSize is how large a file may get.
var fileSize = sizes{zero: true, least: 64 << 10, most: 1 << 50}

// readCapture reads a [[tap.capture]]; lines are those of the names so far.
func (t table) readCapture(services []Service, lines map[string]int) Capture {
	c := Capture{Name: t.ownName(lines, "capture", "capture")}
	if c.Name != "" {
		t.name = fmt.Sprintf("capture %q", c.Name)
	}
	t.checkKeys()
	c.Directory = t.directory()
	t.readSelection(&c, services)
	c.Profile, c.SnapLength = t.snap()
	c.MaxSize = t.size("max_size", fileSize)
	c.MaxDuration = t.duration("max_duration", fileTime)
	c.MaxPackets = int(t.integer("max_packets", maxNumber))
	c.KeepFiles = int(t.integer("keep_files", maxNumber))
	c.KeepSize = t.size("keep_size", fileSize)
	c.Compress = t.boolean("compress")
	c.GSO = choice(t, "gso", GSOHost, GSOWire)
	c.Autostart = t.boolean("autostart")
	if c.KeepSize > 0 && c.MaxSize > c.KeepSize {
		t.r.failf(t.at("keep_size"), "write at least "+formatSize(c.MaxSize)+", or a smaller max_size", "no file of max_size, %s, fits in", formatSize(c.MaxSize))
	}
	if c.MaxSize == 0 && c.MaxDuration == 0 && c.MaxPackets == 0 {
		t.r.warnf(t.here(), "add max_size, max_duration or max_packets", "the file never ends, so that it is not whole until the capture stops")
	} else if c.KeepFiles == 0 && c.KeepSize == 0 {
		t.r.warnf(t.here(), "add keep_files or keep_size", "all files are kept, which fills the disk")
	}
	return c
}

// readSelection reads which packets a capture takes.
func (t table) readSelection(c *Capture, services []Service) {
	before := len(t.r.errs)
	var of []Service
	for _, item := range t.chosen("services") {
		i := slices.IndexFunc(services, func(s Service) bool { return s.Name == item.text })
		if i < 0 {
			t.r.failf(item.at, "write the name of a [[service]]", "there is no service %s", quote(item.text))
			continue
		}
		c.Services, of = append(c.Services, item.text), append(of, services[i])
	}
	if c.Services == nil {
		of = services
	}
	for _, item := range t.chosen("backends") {
		if !slices.ContainsFunc(of, func(s Service) bool { return s.hasBackend(item.text) }) {
			t.r.failf(item.at, "write the name of a backend, or its address if it has none", "these services have no backend %s", quote(item.text))
			continue
		}
		c.Backends = append(c.Backends, item.text)
	}
	c.Clients = unique(t.prefixes("clients"))
	if v, given := t.values["protocol"]; given && v != "" {
		c.Protocol = choice(t, "protocol", ProtocolTCP, ProtocolUDP)
	}
	if c.Protocol != "" && len(t.r.errs) == before && !slices.ContainsFunc(of, func(s Service) bool { return s.Protocol == c.Protocol }) {
		t.r.failf(t.at("protocol"), "remove it, or name other services", "no service of this capture is one of %s", strings.ToUpper(string(c.Protocol)))
	}
	c.Filter = t.string("filter")
	c.Direction = choice(t, "direction", DirectionBoth, DirectionIn, DirectionOut)
	c.Sample = int(t.between("sample", 1, 100))
}

// hasBackend reports whether flows of the service may go to a backend of that
// name. Of those that are found by name nothing is known.
func (s Service) hasBackend(name string) bool {
	return s.has(func(b Backend) bool { return b.Name == name || b.Discovered() })
}

// chosen gives the elements of a list of names, each once.
func (t table) chosen(key string) []listItem {
	if _, given := t.values[key]; !given {
		return nil
	}
	items, _ := t.list(key)
	lines := make(map[string]int)
	return slices.DeleteFunc(items, func(item listItem) bool { return !t.isNew(item, lines) })
}

// readRecorder reads [tap.recorder]; nil for none.
func (t table) readRecorder() *Recorder {
	t, ok := t.nested(kindRecorder)
	if !ok {
		return nil
	}
	window := span{zero: true, least: time.Millisecond, most: time.Hour}
	rec := &Recorder{
		Memory:              t.size("memory", sizes{least: 1 << 20, most: maxRingSize}),
		Directory:           t.directory(),
		Before:              t.duration("before", window),
		After:               t.duration("after", window),
		RTTThreshold:        t.duration("rtt_threshold", span{zero: true, least: time.Microsecond, most: time.Minute}),
		RetransmitThreshold: int(t.integer("retransmit_threshold", maxNumber)),
		Rate:                int(t.between("rate", 1, 600)),
		KeepFiles:           int(t.integer("keep_files", maxNumber)),
	}
	rec.Profile, rec.SnapLength = t.snap()
	before := len(t.r.errs)
	rec.Triggers = t.triggers()
	if len(t.r.errs) == before {
		t.checkThreshold(rec, TriggerRTT, "rtt_threshold", rec.RTTThreshold > 0, "50ms")
		t.checkThreshold(rec, TriggerRetransmits, "retransmit_threshold", rec.RetransmitThreshold > 0, "10")
	}
	return rec
}

// triggers gives what makes the recorder dump.
func (t table) triggers() []Trigger {
	var out []Trigger
	if _, given := t.values["triggers"]; !given {
		for _, s := range t.field("triggers").value.([]string) {
			out = append(out, Trigger(s))
		}
		return out
	}
	for _, item := range t.chosen("triggers") {
		if !slices.Contains(triggers, Trigger(item.text)) {
			t.r.failf(item.at, "write one of "+quoteAll(triggers), "%s is not known", quote(item.text))
			continue
		}
		out = append(out, Trigger(item.text))
	}
	return out
}

// checkThreshold holds that a trigger with a threshold has one, and no other.
func (t table) checkThreshold(rec *Recorder, trigger Trigger, key string, set bool, example string) {
	switch on := slices.Contains(rec.Triggers, trigger); {
	case on && !set:
		if f := t.field(key); f.value != 0 {
			example = `"` + example + `"`
		}
		t.r.failf(t.at("triggers"), "add "+key+" = "+example, "trigger %q has no threshold", string(trigger))
	case set && !on:
		t.r.failf(t.at(key), fmt.Sprintf("add %q to triggers, or remove it", string(trigger)), "without its trigger it does nothing")
	}
}
