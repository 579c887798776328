package config

import (
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Mirror says which packets are sent on as copies, and where.
type Mirror struct {
	Name        string   // unique
	Interfaces  []string // that are mirrored, at least one
	ToInterface string   // "" with a Collector

	Collector     netip.Addr // the zero value with ToInterface
	Encapsulation Encapsulation
	ID            uint32 // vni of vxlan, key of gre, session of erspan

	Filter     string   // in tcpdump's language, "" for everything
	Services   []string // of mode vip; nil: whatever the service
	SnapLength int      // bytes of each frame, 0 for all
	Rate       int64    // bits a second, 0 without limit
	Engine     Engine
}

// Encapsulation is in what frames go to a collector.
type Encapsulation string

// In what frames go to a collector; "" is without one.
const (
	EncapsulationVXLAN  Encapsulation = "vxlan"
	EncapsulationGRE    Encapsulation = "gre"
	EncapsulationERSPAN Encapsulation = "erspan"
)

// Engine is who mirrors.
type Engine string

// Who mirrors.
const (
	EngineUser   Engine = "user"
	EngineKernel Engine = "kernel" // by tc, which needs CAP_NET_ADMIN
)

// identifiers are the keys that name a mirror to the collector, and how large
// their values may be.
var identifiers = []struct {
	kind Encapsulation
	key  string
	most int64
}{
	{EncapsulationVXLAN, "vni", 1<<24 - 1},
	{EncapsulationGRE, "key", 1<<32 - 1},
	{EncapsulationERSPAN, "session", 1<<10 - 1},
}

// The shortest that a frame may be cut to has its Ethernet header.
const (
	minSnap = 14
	maxSnap = 262144
)

// validLink is a name that an interface can have: dev_valid_name(), and no
// letter that needs quoting anywhere.
var validLink = regexp.MustCompile(`^[A-Za-z0-9_.-]{1,15}$`)

const linkRemedy = "write the name of an interface, as ip link shows it"

// readMirrors reads every [[mirror]].
func (r *reader) readMirrors(root table, services []Service) []Mirror {
	var out []Mirror
	var places []table
	lines := make(map[string]int)
	for _, t := range root.tables(kindMirror) {
		name := t.ownName(lines, "mirror", "mirror")
		if name != "" {
			t.name = "mirror " + quote(name)
		}
		t.checkKeys()
		m := t.readMirror(services)
		m.Name = name
		out, places = append(out, m), append(places, t)
	}
	for i, m := range out {
		for _, other := range out {
			if m.ToInterface != "" && slices.Contains(other.Interfaces, m.ToInterface) {
				r.failf(places[i].at("to_interface"), "mirror to an interface that no mirror takes frames from",
					"%s is mirrored by mirror %s, which would see its own frames", quote(m.ToInterface), quote(other.Name))
				break
			}
		}
	}
	return out
}

func (t table) readMirror(services []Service) Mirror {
	m := Mirror{Engine: choice(t, "engine", EngineUser, EngineKernel), Filter: t.string("filter")}
	if _, given := t.values["interfaces"]; !given {
		t.r.failf(t.here(), "add "+t.field("interfaces").example(), "the mirror has no interfaces")
	} else {
		m.Interfaces = t.links("interfaces")
	}
	t.readDestination(&m)
	m.Services = t.mirroredServices(services)
	if m.Engine == EngineKernel {
		for _, key := range []string{"collector", "snap_length", "rate"} {
			t.refuse(key, `remove it, or write engine = "user"`, "the kernel's engine has no such key")
		}
	}
	if _, given := t.values["snap_length"]; given {
		if m.SnapLength = int(t.integer("snap_length", maxSnap)); m.SnapLength > 0 && m.SnapLength < minSnap {
			t.r.failf(t.at("snap_length"), "write 0, or 14 and more", "%d bytes are less than an Ethernet header", m.SnapLength)
		}
	}
	m.Rate = t.bitRate("rate")
	return m
}

// links gives a list of names of interfaces.
func (t table) links(key string) (out []string) {
	items, ok := t.list(key)
	if ok && len(items) == 0 {
		t.r.failf(t.at(key), "write "+t.field(key).example(), "the list is empty")
	}
	for _, item := range items {
		switch {
		case !validLink.MatchString(item.text):
			t.r.failf(item.at, linkRemedy, "%s is no interface", quote(item.text))
		case slices.Contains(out, item.text):
			t.r.failf(item.at, "list every interface once", "%s is listed twice", quote(item.text))
		default:
			out = append(out, item.text)
		}
	}
	return out
}

// readDestination reads where the frames go.
func (t table) readDestination(m *Mirror) {
	to, toGiven, _ := t.text("to_interface")
	collector, collectorGiven, ok := t.text("collector")
	if toGiven == collectorGiven {
		t.r.failf(t.here(), "write one of to_interface and collector", "where frames go has to be said once")
		return
	}
	if toGiven {
		if to != "" && !validLink.MatchString(to) || to == "" {
			t.r.failf(t.at("to_interface"), linkRemedy, "%s is no interface", quote(to))
		}
		m.ToInterface = to
		for _, key := range []string{"encapsulation", "vni", "key", "session"} {
			t.refuse(key, "remove it, or write collector in place of to_interface", "frames leave an interface as they are")
		}
		return
	}
	if !ok {
		return
	}
	addr, bad := parseAddr(collector)
	if bad == nil && (addr.IsUnspecified() || addr.IsMulticast()) {
		bad = &mistake{quote(collector) + " is not the address of a host", "write the address of the collector"}
	}
	if bad != nil {
		t.r.failf(t.at("collector"), bad.remedy, "%s", bad.msg)
	}
	m.Collector = addr
	m.Encapsulation = choice(t, "encapsulation", EncapsulationVXLAN, EncapsulationGRE, EncapsulationERSPAN)
	for _, id := range identifiers {
		if id.kind == m.Encapsulation {
			m.ID = uint32(t.integer(id.key, id.most))
		} else {
			t.refuse(id.key, `remove it, or write encapsulation = "`+string(id.kind)+`"`, "%s has no such key", m.Encapsulation)
		}
	}
}

// mirroredServices gives the services that are mirrored.
func (t table) mirroredServices(services []Service) (out []string) {
	if _, given := t.values["services"]; !given {
		return nil
	}
	items, _ := t.list("services")
	for _, item := range items {
		at := slices.IndexFunc(services, func(s Service) bool { return s.Name == item.text })
		switch {
		case at < 0:
			t.r.failf(item.at, "write the name of a [[service]]", "there is no service %s", quote(item.text))
		case services[at].Mode == ModeIntercept:
			t.r.failf(item.at, "write a filter in its place", "service %s is of mode intercept, whose packets have any address", quote(item.text))
		case slices.Contains(out, item.text):
			t.r.failf(item.at, "list every service once", "%s is listed twice", quote(item.text))
		default:
			out = append(out, item.text)
		}
	}
	return out
}

// rateUnits are in bits a second.
var rateUnits = []struct {
	name string
	bits int64
}{{"Gbit", 1e9}, {"Mbit", 1e6}, {"kbit", 1e3}}

// maxBitRate is in bits a second.
const maxBitRate = 1e12

// bitRate gives bits a second; "" is 0.
func (t table) bitRate(key string) int64 {
	s := t.string(key)
	if s == "" {
		return 0
	}
	for _, u := range rateUnits {
		digits, ok := strings.CutSuffix(s, u.name)
		if !ok {
			continue
		}
		if n, err := strconv.ParseInt(strings.TrimSpace(digits), 10, 64); err == nil && n > 0 && n <= maxBitRate/u.bits {
			return n * u.bits
		}
	}
	t.r.failf(t.at(key), `write it like "500Mbit", with kbit, Mbit or Gbit a second, up to 1000Gbit`, "%s is no rate", quote(s))
	return 0
}

func formatBitRate(n int64) string {
	for _, u := range rateUnits {
		if n > 0 && n%u.bits == 0 {
			return strconv.FormatInt(n/u.bits, 10) + u.name
		}
	}
	return ""
}
