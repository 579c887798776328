package config

import (
	"fmt"
	"net/netip"
	"slices"
)

// The checks that look at several entries at once.

// covers reports whether a socket bound to a takes what is sent to b. Our IPv6
// listeners are v6-only.
func covers(a, b netip.Addr) bool {
	return a == b || a.IsUnspecified() && a.Is4() == b.Is4()
}

// has reports whether port is one of p.
func (p ports) has(port uint16) bool { return p.lo <= port && port <= p.hi }

// meets reports whether what is sent by one protocol can reach a socket of the
// other. Nothing is said of a protocol that the file does not say rightly.
func (p Protocol) meets(o Protocol) bool { return p == o && p != "" }

// overlaps reports whether two entries would take the same packets.
func (l listener) overlaps(o listener) bool {
	return l.protocol.meets(o.protocol) && l.lo <= o.hi && o.lo <= l.hi && (covers(l.addr, o.addr) || covers(o.addr, l.addr))
}

// checkOverlaps compares every listen entry with those before it.
func (r *reader) checkOverlaps() {
	for i, l := range r.listeners {
		for _, o := range r.listeners[:i] {
			if l.overlaps(o) {
				r.failf(l.at, "remove one of them, or use another address or port", "%s overlaps %s of %s at line %d", l, o, o.at.key, o.at.line)
				break
			}
		}
	}
}

// checkLoops finds backends that are a listener of the same file.
func (r *reader) checkLoops() {
	for _, b := range r.backends {
		for _, l := range r.listeners {
			addr := b.addr.Addr()
			if l.protocol.meets(b.protocol) && l.has(b.addr.Port()) && (l.addr == addr || addr.IsLoopback() && covers(l.addr, addr)) {
				r.failf(b.at, "write the address of the server behind the proxy", "%s is our own listener %s, %s at line %d: connections would loop",
					b.addr, l, l.at.key, l.at.line)
				break
			}
		}
	}
}

// checkAdmin finds services on the admin address, which is one of TCP. The admin
// listener is not v6-only: on a wildcard address it takes both families.
func (r *reader) checkAdmin(admin netip.AddrPort, at place) {
	for _, l := range r.listeners {
		addr := admin.Addr()
		if admin.IsValid() && l.protocol == ProtocolTCP && l.has(admin.Port()) && (addr.IsUnspecified() || covers(l.addr, addr)) {
			r.failf(at, "use another port", "%s overlaps %s of %s at line %d", admin, l, l.at.key, l.at.line)
			return
		}
	}
}

// familyNames are what family counts.
var familyNames = [2]string{"IPv4", "IPv6"}

// checkFamilies notes listen addresses whose clients no backend of a pool can
// serve, because the backend is to see the client's address and has no such family.
// Of names nothing is known.
func (r *reader) checkFamilies(t table, s Service, p pool) {
	if s.Source == SourceHost || slices.ContainsFunc(p.backends, Backend.Discovered) {
		return
	}
	var served, listens [2]bool
	for _, b := range p.backends {
		served[family(b.Address.Addr())] = true
	}
	for _, a := range s.Listen {
		listens[family(a.Addr())] = true
	}
	owner, of := "the service", ""
	if p.route != "" {
		owner, of = fmt.Sprintf("route %q", p.route), fmt.Sprintf(" of route %q", p.route)
	}
	for i, other := range [2]int{1, 0} {
		if !listens[i] || served[i] {
			continue
		}
		remedy := fmt.Sprintf(`add an %s backend, or write source = "host"`, familyNames[i])
		what := fmt.Sprintf("source = %q needs backends of the client's family", string(s.Source))
		switch {
		case listens[other]: // which has a backend: there is one, and not of this family
			r.warnf(t.at("listen"), remedy, "%s: %s flows%s will be refused (no_backend)", what, familyNames[i], of)
		case of != "":
			r.failf(t.at("listen"), remedy, "%s: the service listens on %s and %s has %s backends only", what, familyNames[i], owner, familyNames[other])
		default:
			r.failf(t.at("listen"), remedy, "%s: the service listens on %s and has %s backends only", what, familyNames[i], familyNames[other])
		}
	}
}

func family(a netip.Addr) int {
	if a.Is4() {
		return 0
	}
	return 1
}
