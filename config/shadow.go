package config

import (
	"net/netip"
	"time"
)

// Shadow is a server that gets a copy of what flows carry, and whose answers
// are thrown away.
type Shadow struct {
	Address   netip.AddrPort
	Percent   int // of the flows, 1 to 100
	Direction ShadowDirection
	Compare   bool          // its answers with those of the upstream
	Linger    time.Duration // how long a copy may go on after its flow, never 0
}

// ShadowDirection says what a shadow gets.
type ShadowDirection string

// What a shadow gets.
const (
	ShadowIn   ShadowDirection = "in"   // what clients send
	ShadowOut  ShadowDirection = "out"  // what upstreams send
	ShadowBoth ShadowDirection = "both" // both, on a connection each
)

// readShadow reads [service.shadow].
func (t table) readShadow(s *Service) {
	t, ok := t.nested(kindShadow)
	if !ok {
		return
	}
	sh := &Shadow{
		Percent:   int(t.between("percent", 1, 100)),
		Direction: choice(t, "direction", ShadowIn, ShadowOut, ShadowBoth),
		Compare:   t.boolean("compare"),
		Linger:    t.duration("linger", span{least: time.Millisecond, most: time.Hour}),
	}
	if _, given := t.values["address"]; !given {
		t.r.failf(t.here(), "add "+t.field("address").example(), "the shadow has no address")
	} else if text, _, ok := t.text("address"); ok {
		sh.Address = t.shadowAddress(text)
	}
	if sh.Compare && sh.Direction == ShadowOut {
		t.r.failf(t.at("compare"), `write direction = "in" or "both", or remove it`, "a shadow that gets what upstreams send has no answers to compare")
	}
	s.Shadow = sh
}

// shadowAddress reads the address, to which as to backends no service of ours
// may listen.
func (t table) shadowAddress(text string) netip.AddrPort {
	at := t.at("address")
	addr, bad := parseAddrPort(text)
	if bad == nil && addr.Addr().IsUnspecified() {
		bad = &mistake{quote(text) + " is a wildcard", "write the address of one server"}
	}
	if bad != nil {
		t.r.failf(at, bad.remedy, "%s", bad.msg)
		return addr
	}
	t.r.backends = append(t.r.backends, upstream{addr: addr, protocol: t.protocol, at: at})
	return addr
}

type docShadow struct {
	Address   string          `toml:"address" json:"address"`
	Percent   int             `toml:"percent" json:"percent"`
	Direction ShadowDirection `toml:"direction" json:"direction"`
	Compare   bool            `toml:"compare" json:"compare"`
	Linger    string          `toml:"linger" json:"linger"`
}

func (s *Shadow) document() *docShadow {
	if s == nil {
		return nil
	}
	return &docShadow{
		Address: s.Address.String(), Percent: s.Percent, Direction: s.Direction,
		Compare: s.Compare, Linger: formatDuration(s.Linger),
	}
}
