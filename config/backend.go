package config

import (
	"cmp"
	"fmt"
	"net/netip"
	"strings"
)

// pool reads the backends of a service or a route. Taken has the names that the
// service has given, and their lines.
func (r *reader) pool(t table, taken map[string]int) []Backend {
	var out []Backend
	lines := make(map[string]int)
	for _, bt := range t.tables(kindBackend) {
		bt.checkKeys()
		b := Backend{Weight: int(bt.integer("weight", maxWeight)), Backup: bt.boolean("backup")}
		if t.protocol != ProtocolUDP {
			b.Limit = int(bt.integer("max_connections", maxNumber))
		}
		if t.protocol != ProtocolTCP {
			b.Limit = max(b.Limit, int(bt.integer("max_flows", maxNumber)))
		}
		at, ok := bt.target(&b)
		if !ok {
			bt.text("name") // for its mistakes
			continue
		}
		if line, again := lines[b.target()]; again {
			r.failf(at, "list every backend once", "%s is the backend at line %d too", b.target(), line)
			continue
		}
		lines[b.target()] = at.line
		if b.Address.IsValid() {
			r.backends = append(r.backends, upstream{addr: b.Address, protocol: t.protocol, at: at})
		}
		bt.nameBackend(&b, taken)
		out = append(out, b)
	}
	return out
}

// target is what a backend stands for.
func (b Backend) target() string {
	switch {
	case b.Host != "":
		return fmt.Sprintf("%s:%d", b.Host, b.Port)
	case b.SRV != "":
		return b.SRV
	}
	return b.Address.String()
}

// nameBackend gives a backend its name: as the file says, or what it stands for.
func (t table) nameBackend(b *Backend, taken map[string]int) {
	def := cmp.Or(b.Host, b.target())
	b.Name = def
	s, given, ok := t.text("name")
	if given && ok {
		b.Name = s
	}
	if b.Address.IsValid() && b.Name == def {
		// The form of IPv6 addresses is none of validName.
	} else if !validName.MatchString(b.Name) {
		if b.Name == def {
			t.r.failf(t.at("name"), "add a name, such as "+t.field("name").example(), "%s is no name for a backend", quote(b.Name))
		} else {
			t.r.failf(t.at("name"), nameRemedy+", or leave it out", "%s is no name for a backend", quote(b.Name))
		}
	}
	if line, again := taken[b.Name]; again {
		t.r.failf(t.at("name"), "give every backend of a service a name of its own", "%q is the name of the backend at line %d too", b.Name, line)
	}
	taken[b.Name] = t.at("name").line
}

// target reads the address of a backend, or the name that is to be looked up.
func (t table) target(b *Backend) (at place, ok bool) {
	address, hasAddress, ok := t.text("address")
	srv, hasSRV, isText := t.text("srv")
	var bad *mistake
	switch {
	case !ok || !isText:
		return place{}, false
	case hasAddress && hasSRV:
		t.r.failf(t.at("srv"), "remove one of them", "the backend has an address too")
		return place{}, false
	case hasSRV:
		at = t.at("srv")
		b.SRV, bad = serviceName(srv)
		t.refuse("weight", "remove it, since the records give the weight", "a backend by srv has no such key")
		b.Weight = 1
	case hasAddress:
		at = t.at("address")
		bad = b.setAddress(address)
	default:
		t.r.failf(t.here(), "add "+t.field("address").example(), "the backend has no address")
		return place{}, false
	}
	if bad != nil {
		t.r.failf(at, bad.remedy, "%s", bad.msg)
		return place{}, false
	}
	return at, true
}

// setAddress reads IP:PORT or NAME:PORT.
func (b *Backend) setAddress(s string) *mistake {
	host, port, bad := splitPort(s)
	if bad != nil {
		return bad
	}
	if isName(host) {
		if b.Host, bad = hostName(host); bad != nil {
			return bad
		}
		if strings.Contains(port, "-") {
			return &mistake{quote(s) + " is a port range", rangeRemedy}
		}
		b.Port, bad = parsePort(s, port)
		return bad
	}
	var addr netip.AddrPort
	if addr, bad = parseAddrPort(s); bad != nil {
		return bad
	}
	if addr.Addr().IsUnspecified() {
		return &mistake{quote(s) + " is a wildcard", "write the address of one server"}
	}
	b.Address = addr
	return nil
}

// isName reports whether a host is meant as a name, not as an address.
func isName(host string) bool {
	_, err := netip.ParseAddr(host)
	return err != nil && !strings.Contains(host, ":") && strings.ContainsFunc(host, func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r > '~'
	})
}
