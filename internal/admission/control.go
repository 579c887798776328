package admission

import (
	"fmt"
	"math"
	"net/netip"
	"time"
)

// MaxClientsLimit is the most clients that a table may be asked to remember.
const MaxClientsLimit = 1 << 24

// DefaultMaxClients is what MaxClients is if it is 0.
const DefaultMaxClients = 1 << 16

// Config says who may open flows. Its zero value lets everybody in.
type Config struct {
	Allow, Deny  []netip.Prefix
	MaxPerClient int     // concurrent flows of one client; 0: no limit
	Rate         float64 // new flows of one client a second; 0: no limit
	Burst        int     // of them at once; 0: Rate rounded up, at least 1
	Bits4, Bits6 int     // length of the prefix that is one client; 0: 32 and 64
	MaxClients   int     // clients remembered for the limits; 0: DefaultMaxClients
}

// A Control decides by one Config. Its methods may be called from any
// goroutine, but Adopt only before the first Admit.
type Control struct {
	lists   *lists
	limits  limits
	masks   masks
	clients *table // nil: no limits
	maximum int
}

// New is the Control for c.
func New(c Config) (*Control, error) {
	lists, err := newLists(c.Allow, c.Deny)
	if err != nil {
		return nil, err
	}
	if c.Bits4 == 0 {
		c.Bits4 = 32
	}
	if c.Bits6 == 0 {
		c.Bits6 = 64
	}
	if c.MaxClients == 0 {
		c.MaxClients = DefaultMaxClients
	}
	if err := c.check(); err != nil {
		return nil, err
	}
	n := &Control{lists: lists, limits: newLimits(c), masks: newMasks(c.Bits4, c.Bits6), maximum: c.MaxClients}
	if n.limits.any() {
		n.clients = newTable(c.MaxClients)
	}
	return n, nil
}

func (c *Config) check() error {
	switch {
	case c.MaxPerClient < 0 || c.MaxPerClient > math.MaxInt32:
		return fmt.Errorf("flows per client: %d is not in 0..%d", c.MaxPerClient, math.MaxInt32)
	case !(c.Rate >= 0 && c.Rate <= 1e9):
		return fmt.Errorf("rate per client: %v is not in 0..1e9", c.Rate)
	case c.Rate > 0 && c.Rate < 1e-6:
		return fmt.Errorf("rate per client: %v is less than 1e-6", c.Rate)
	case c.Burst < 0 || c.Burst > 1e6:
		return fmt.Errorf("burst per client: %d is not in 0..1000000", c.Burst)
	case c.Rate > 0 && float64(c.Burst)/c.Rate > maxRefill.Seconds():
		return fmt.Errorf("burst per client: %d at %v a second takes over %v to refill", c.Burst, c.Rate, maxRefill)
	case c.Bits4 < 1 || c.Bits4 > 32:
		return fmt.Errorf("client prefix: %d is not in 1..32", c.Bits4)
	case c.Bits6 < 1 || c.Bits6 > 128:
		return fmt.Errorf("client prefix: %d is not in 1..128", c.Bits6)
	case c.MaxClients < 1 || c.MaxClients > MaxClientsLimit:
		return fmt.Errorf("clients: %d is not in 1..%d", c.MaxClients, MaxClientsLimit)
	}
	return nil
}

// Admit decides on a new flow of a at the time now, in nanoseconds of any
// clock that does not go back.
func (c *Control) Admit(a netip.Addr, now int64) Verdict {
	a = a.Unmap().WithZone("")
	if !a.IsValid() || !c.lists.admits(a) {
		return Denied
	}
	if c.clients == nil {
		return Admitted
	}
	return c.clients.admit(c.masks.client(a), now, &c.limits)
}

// Done ends a flow of a that was Admitted. Of a client that has none it does
// nothing.
func (c *Control) Done(a netip.Addr) {
	if c.clients == nil || c.limits.flows == 0 {
		return
	}
	c.clients.done(c.masks.client(a.Unmap()))
}

// Adopt makes c, before its first Admit, go on with what old knows of the
// clients, while old may still be in use, and says whether it did. It does not if
// what counts as one client is another prefix length, or if only one of them
// limits concurrent flows: then the flows that old admitted do not count at c
// and must end at old, and c starts with full buckets.
//
// The room of the common table becomes MaxClients of c, or as many as have
// something to remember, if these are more.
func (c *Control) Adopt(old *Control) bool {
	if old == nil || old.masks != c.masks || (old.limits.flows == 0) != (c.limits.flows == 0) {
		return false
	}
	if old.clients == nil || c.clients == nil {
		return true // neither counts flows, or it would have a table
	}
	c.clients = old.clients
	c.clients.resize(c.maximum)
	return true
}

// Clients is the number of clients that the table remembers something of, or
// did until lately. It is for metrics, not for the data path.
func (c *Control) Clients() int {
	if c.clients == nil {
		return 0
	}
	return c.clients.len()
}

// maxRefill bounds how far a stamp may lie ahead of now.
const maxRefill = 366 * 24 * time.Hour
