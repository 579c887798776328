package config

import (
	"fmt"
	"math"
	"net/netip"
	"regexp"
	"time"
)

// maxListeners bounds the sockets per worker that a file can ask for.
const maxListeners = 4096

// validName is a name that can be a metric label, part of a URL and a word on a
// command line as it stands.
var validName = regexp.MustCompile(`^[A-Za-z0-9_.-]{1,64}$`)

const nameRemedy = "write 1 to 64 of the letters A-Z a-z 0-9 _ . -"

// The limits of the kernel: MAX_TCP_KEEPIDLE is 32767 s, and TCP_USER_TIMEOUT
// counts milliseconds in an int.
const (
	maxKeepalive   = 32767 * time.Second
	maxUserTimeout = 596 * time.Hour
)

// maxNumber bounds counts of connections, flows and datagrams.
const maxNumber = math.MaxInt32

// timeout is what a timeout that can be switched off may be.
var timeout = span{zero: true, least: time.Millisecond, most: year}

// listener is a listen entry and its place.
type listener struct {
	ports
	protocol Protocol // "" if the file does not say it rightly
	at       place
}

// upstream is the address of a backend and its place.
type upstream struct {
	addr     netip.AddrPort
	protocol Protocol // as of a listener
	at       place
}

// services reads every [[service]].
func (r *reader) services(root table) []Service {
	tables := root.tables(kindService)
	if isEmpty(root.values[kindService]) {
		r.failf(root.at(kindService), "add a [[service]] with a name, a listen and a [[service.backend]], as tproxyd.toml.example has",
			"the file has no service")
	}
	var out []Service
	lines := make(map[string]int)
	for _, t := range tables {
		name := t.ownName(lines, "service", "service")
		if name != "" {
			t.name = fmt.Sprintf("service %q", name)
		}
		t.protocol = t.readProtocol()
		t.checkKeys()
		out = append(out, r.service(t, name))
	}
	return out
}

// isEmpty reports whether an array is missing or has no elements.
func isEmpty(v any) bool {
	list, ok := v.([]any)
	return v == nil || ok && len(list) == 0
}

// ownName gives the name of a table of which there are several, and notes why
// it is "", or that another one has it; lines are those of the names so far. what
// is what the table is, and among where its name must be its own.
func (t table) ownName(lines map[string]int, what, among string) string {
	s, given, ok := t.text("name")
	switch {
	case !ok:
		return ""
	case !given:
		t.r.failf(t.here(), "add "+t.field("name").example(), "the %s has no name", what)
		return ""
	case !validName.MatchString(s):
		t.r.failf(t.at("name"), nameRemedy, "%s is no name for a %s", quote(s), what)
		return ""
	}
	if line, taken := lines[s]; taken {
		t.r.failf(t.at("name"), fmt.Sprintf("give every %s a name of its own", among), "%q is the name of the %s at line %d too", s, what, line)
		return s
	}
	lines[s] = t.at("name").line
	return s
}

// service reads a [[service]].
func (r *reader) service(t table, name string) Service {
	s := Service{
		Name:        name,
		Protocol:    t.protocol,
		Mode:        choice(t, "mode", ModeVIP, ModeIntercept),
		IdleTimeout: t.duration("idle_timeout", timeout),
		MaxLifetime: t.duration("max_lifetime", timeout),
	}
	before := len(r.errs)
	s.Source = choice(t, "source", SourceClient, SourceClientIP, SourcePreferClient, SourceHost)
	s.Listen = r.listen(t)
	taken := make(map[string]int)
	s.Backends = r.pool(t, taken)
	r.readRoutes(t, &s, taken)
	noPool := isEmpty(t.values[kindBackend]) && (isEmpty(t.values[kindRoute]) || t.protocol == ProtocolUDP)
	mode, given := t.values["mode"]
	if (!given || mode == string(ModeVIP)) && noPool {
		r.failf(t.here(), `add a [[service.backend]] with its address, or write mode = "intercept"`, "a vip service needs a backend")
	}
	if len(r.errs) == before {
		for _, p := range s.pools() {
			r.checkFamilies(t, s, p)
		}
	}
	t.readAnnounce(&s)
	t.readProxyProtocol(&s)
	t.readAdmission(&s)
	t.readShadow(&s)
	if s.Mode == ModeIntercept && noPool {
		t.refusePool()
	} else {
		t.readPool(&s)
	}
	// Of a service whose protocol is misspelt the keys of both are looked at.
	if t.protocol != ProtocolUDP {
		t.readTCP(&s)
	}
	if t.protocol != ProtocolTCP {
		t.readUDP(&s)
	}
	return s
}

// listen reads the listen entries of a service and expands port ranges.
func (r *reader) listen(t table) []netip.AddrPort {
	at := t.at("listen")
	if _, given := t.values["listen"]; !given {
		r.failf(t.here(), "add "+t.field("listen").example(), "the service has no listen")
		return nil
	}
	items, ok := t.list("listen")
	if ok && len(items) == 0 {
		r.failf(at, "write "+t.field("listen").example(), "the list is empty")
	}
	var out []netip.AddrPort
	for _, item := range items {
		p, bad := parsePorts(item.text)
		if bad != nil {
			r.failf(item.at, bad.remedy, "%s", bad.msg)
			continue
		}
		within := r.expanded <= maxListeners
		r.expanded += p.count()
		if r.expanded > maxListeners {
			if within {
				r.failf(item.at, `for wide port ranges write mode = "intercept" with one listen address and send the ports there by a TPROXY rule`,
					"%s brings the file to %d listeners, more than %d", p, r.expanded, maxListeners)
			}
			continue
		}
		r.listeners = append(r.listeners, listener{ports: p, protocol: t.protocol, at: item.at})
		for port := int(p.lo); port <= int(p.hi); port++ {
			out = append(out, netip.AddrPortFrom(p.addr, uint16(port)))
		}
	}
	return out
}
