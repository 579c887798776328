package config

import (
	"net/netip"
	"time"
)

// Health is the active check of the backends of a service.
type Health struct {
	Type         HealthType
	Interval     time.Duration // never 0
	FastInterval time.Duration // while the state changes, 0: Interval
	Jitter       int           // per cent of the interval, up to 50
	Timeout      time.Duration // of a whole check, never 0
	Rise, Fall   int           // results in a row that change the state, never 0
	Initial      Initial
	Source       CheckSource
	SpoofAddress []netip.Addr // of CheckSourceSpoof, one per family at most: given, or from Listen
	Address      netip.Addr   // to check instead of the backend's; the zero value: the backend's
	Port         uint16       // likewise, 0: the backend's

	// Of http, else zero.
	Method       string
	Path         string
	Host         string   // "": the address
	ExpectStatus [][2]int // from, to; sorted, apart from each other
	ExpectBody   string   // "": any
	TLS          bool

	// Of tls, and of http with TLS, else zero.
	ServerName string // "": none
	Verify     bool   // never without ServerName
	MinDays    int    // days that the certificate must still be valid, 0: not looked at

	// Of udp, else nil.
	Send   []byte
	Expect []byte // nil: any answer

	// Of dns, else "".
	Query       string // in lower case, with the last dot
	QueryType   string // such as NS
	ExpectRcode string // such as NOERROR
}

// maxResults bounds counts of results in a row.
const maxResults = 1000

// readHealth reads [service.health].
func (t table) readHealth(s *Service) {
	t, ok := t.nested(kindHealth)
	if !ok {
		return
	}
	interval := span{least: 10 * time.Millisecond, most: time.Hour}
	h := &Health{
		Type:     t.healthType(),
		Interval: t.duration("interval", interval),
		Jitter:   int(t.integer("jitter", 50)),
		Timeout:  t.duration("timeout", span{least: time.Millisecond, most: 5 * time.Minute}),
		Rise:     int(t.between("rise", 1, maxResults)),
		Fall:     int(t.between("fall", 1, maxResults)),
		Initial:  choice(t, "initial", InitialUp, InitialDown),
		Address:  t.checkAddress(),
		Port:     uint16(t.integer("port", 65535)),
	}
	interval.zero = true
	h.FastInterval = t.duration("fast_interval", interval)
	if h.Interval > 0 && h.FastInterval > h.Interval {
		t.r.failf(t.at("fast_interval"), "write at most "+formatDuration(h.Interval)+", or a longer interval",
			"%s is longer than interval, %s", formatDuration(h.FastInterval), formatDuration(h.Interval))
	}
	if h.Interval > 0 && h.Timeout > h.Interval {
		t.r.warnf(t.at("timeout"), "write at most "+formatDuration(h.Interval)+", or a longer interval",
			"%s is longer than interval, %s: checks of a backend that hangs come one timeout apart", formatDuration(h.Timeout), formatDuration(h.Interval))
	}
	t.readCheckSource(h, s)
	t.checkHealthKeys(h.Type)
	t.readHTTP(h)
	t.readTLS(h)
	t.readUDPCheck(h)
	t.readDNSCheck(h)
	s.Health = h
}

// healthType gives the type of check, or "" and notes why not.
func (t table) healthType() HealthType {
	if _, given := t.values["type"]; !given {
		t.r.failf(t.here(), "add "+t.field("type").example(), "the checks have no type")
		return ""
	}
	before := len(t.r.errs)
	h := choice(t, "type", HealthTCP, HealthHTTP, HealthTLS, HealthUDP, HealthDNS)
	if len(t.r.errs) > before {
		return ""
	}
	return h
}

// checkAddress gives the address that checks go to; the zero value is the
// backend's.
func (t table) checkAddress() netip.Addr {
	s, _, ok := t.text("address")
	if !ok || s == "" {
		return netip.Addr{}
	}
	a, err := netip.ParseAddr(s)
	if err != nil {
		t.r.failf(t.at("address"), `write an IP address without a port, such as "198.18.2.2"`, "%s is no IP address", quote(s))
		return netip.Addr{}
	}
	return t.unicast(s, a, t.at("address"))
}

// unicast gives an address that a socket can be bound and connected to, or
// notes why not.
func (t table) unicast(s string, a netip.Addr, at place) netip.Addr {
	_, bad := parseAddr(s)
	if bad == nil && a.IsUnspecified() {
		bad = &mistake{quote(s) + " is a wildcard", "write one address"}
	}
	if bad != nil {
		t.r.failf(at, bad.remedy, "%s", bad.msg)
		return netip.Addr{}
	}
	return a
}

// readCheckSource reads which address checks come from.
func (t table) readCheckSource(h *Health, s *Service) {
	before := len(t.r.errs)
	h.Source = choice(t, "check_source", CheckSourceHost, CheckSourceSpoof)
	if h.Source == CheckSourceHost {
		if len(t.r.errs) == before {
			t.refuse("spoof_address", `remove it, or write check_source = "spoof"`, `check_source = "host" has no such key`)
		}
		return
	}
	h.SpoofAddress = t.spoofAddresses()
	if len(t.r.errs) > before {
		return
	}
	if len(h.SpoofAddress) == 0 {
		h.SpoofAddress = listenAddresses(s.Listen)
	}
	t.checkSpoof(h, s)
}

// spoofAddresses gives the addresses of the file, one per family.
func (t table) spoofAddresses() []netip.Addr {
	if _, given := t.values["spoof_address"]; !given {
		return nil
	}
	items, _ := t.list("spoof_address")
	var out []netip.Addr
	var lines [2]int
	for _, item := range items {
		a, err := netip.ParseAddr(item.text)
		if err != nil {
			t.r.failf(item.at, `write an IP address without a port, such as "203.0.113.10"`, "%s is no IP address", quote(item.text))
			continue
		}
		if a = t.unicast(item.text, a, item.at); !a.IsValid() {
			continue
		}
		if line := lines[family(a)]; line > 0 {
			t.r.failf(item.at, "write one address per family", "%s is of the family of the one at line %d", a, line)
			continue
		}
		lines[family(a)] = item.at.line
		out = append(out, a)
	}
	return out
}

// listenAddresses gives the first concrete address of each family.
func listenAddresses(listen []netip.AddrPort) []netip.Addr {
	var out []netip.Addr
	var have [2]bool
	for _, l := range listen {
		if a := l.Addr(); !a.IsUnspecified() && !have[family(a)] {
			have[family(a)] = true
			out = append(out, a)
		}
	}
	return out
}

// checkSpoof notes backends of a family that there is no address for.
func (t table) checkSpoof(h *Health, s *Service) {
	var have, needs [2]bool
	for _, a := range h.SpoofAddress {
		have[family(a)] = true
	}
	if h.Address.IsValid() {
		needs[family(h.Address)] = true
	} else {
		for _, p := range s.pools() {
			for _, b := range p.backends {
				if !b.Discovered() {
					needs[family(b.Address.Addr())] = true
				}
			}
		}
	}
	remedy := `add spoof_address with one, or write check_source = "host"`
	for i, name := range familyNames {
		if needs[i] && !have[i] {
			t.r.failf(t.at("check_source"), remedy, "there is no %s address that checks could come from, since listen has no concrete one", name)
		}
	}
	if len(h.SpoofAddress) == 0 && needs == [2]bool{} {
		t.r.failf(t.at("check_source"), remedy, "there is no address that checks could come from, since listen has no concrete one")
	}
}
