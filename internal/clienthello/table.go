package clienthello

import (
	"bytes"
	"math"
	"strings"
)

// Route says which hellos it is for. With both lists, both must match.
type Route struct {
	// SNI are host names, or "*." and a host name for all names below it, of
	// any depth. Empty: whatever the name, or none.
	SNI []string
	// ALPN are protocols of which one must be offered. Empty: whatever is.
	ALPN []string
}

// Table chooses among routes. It does not change, so that all workers may use
// one.
type Table struct {
	exact map[string]*choice // by name
	below map[string]*choice // by what follows "*."
	rest  choice
}

// none is the number of no route; it is above all others.
const none = math.MaxInt

// choice is one pattern's routes: of several that match, the first counts.
type choice struct {
	plain int            // the first without ALPN
	alpn  map[string]int // the first with each protocol
}

// NewTable makes a table of routes, which Match tells apart by their index.
func NewTable(routes []Route) *Table {
	t := &Table{
		exact: make(map[string]*choice), below: make(map[string]*choice),
		rest: choice{plain: none},
	}
	for i, r := range routes {
		if len(r.SNI) == 0 {
			t.rest.add(i, r.ALPN)
		}
		for _, pattern := range r.SNI {
			names, name := t.exact, strings.ToLower(pattern)
			if suffix, ok := strings.CutPrefix(name, "*."); ok {
				names, name = t.below, suffix
			}
			if names[name] == nil {
				names[name] = &choice{plain: none}
			}
			names[name].add(i, r.ALPN)
		}
	}
	return t
}

func (c *choice) add(route int, protocols []string) {
	if len(protocols) == 0 {
		c.plain = min(c.plain, route)
		return
	}
	if c.alpn == nil {
		c.alpn = make(map[string]int)
	}
	for _, p := range protocols {
		if _, found := c.alpn[p]; !found {
			c.alpn[p] = route
		}
	}
}

// Match is the index of the route for h, and -1 if there is none. A route with
// the name itself goes before one with the longest "*." pattern, and that
// before one without names; among equals the first counts.
func (t *Table) Match(h *Hello) int {
	name := h.ServerName()
	if len(name) > 0 {
		if i := t.exact[string(name)].match(h); i != none {
			return i
		}
	}
	for len(t.below) > 0 {
		dot := bytes.IndexByte(name, '.')
		if dot < 0 {
			break
		}
		name = name[dot+1:]
		if i := t.below[string(name)].match(h); i != none {
			return i
		}
	}
	if i := t.rest.match(h); i != none {
		return i
	}
	return -1
}

func (c *choice) match(h *Hello) int {
	if c == nil {
		return none
	}
	best := c.plain
	if len(c.alpn) == 0 {
		return best
	}
	for p := range h.Protocols {
		if i, ok := c.alpn[string(p)]; ok {
			best = min(best, i)
		}
	}
	return best
}
