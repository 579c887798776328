package admission_test

import (
	"math"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"github.com/tproxyd/tproxyd/internal/admission"
)

const second = int64(1e9)

var alice = netip.MustParseAddr("198.18.1.2")

func expect(t *testing.T, c *admission.Control, a netip.Addr, now int64, want ...admission.Verdict) {
	t.Helper()
	for i, w := range want {
		if got := c.Admit(a, now); got != w {
			t.Fatalf("flow %d of %v at %d: %v, want %v", i, a, now, got, w)
		}
	}
}

func TestErrors(t *testing.T) {
	for want, c := range map[string]admission.Config{
		"deny list: prefix 1 is not valid": {Deny: []netip.Prefix{netip.MustParsePrefix("::/0"), {}}},
		"flows per client: -1":             {MaxPerClient: -1},
		"rate per client: NaN":             {Rate: math.NaN()},
		"rate per client: 1e-09":           {Rate: 1e-9},
		"burst per client: -1":             {Burst: -1},
		"to refill":                        {Rate: 1e-3, Burst: 1e5},
		"client prefix: 33":                {Bits4: 33},
		"client prefix: 129":               {Bits6: 129},
		"clients: -1":                      {MaxClients: -1},
	} {
		if _, err := admission.New(c); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %q", c, err, want)
		}
	}
}

func TestMapped(t *testing.T) {
	c := newControl(t, admission.Config{MaxPerClient: 1})
	expect(t, c, alice, 0, admission.Admitted)
	expect(t, c, netip.AddrFrom16(alice.As16()), 0, admission.TooMany)
	c.Done(netip.AddrFrom16(alice.As16()))
	expect(t, c, alice, 0, admission.Admitted)
}

// TestRefusedCostNothing: what is refused for one limit is not charged to the
// other.
func TestRefusedCostNothing(t *testing.T) {
	c := newControl(t, admission.Config{MaxPerClient: 1, Rate: 1, Burst: 2})
	expect(t, c, alice, 0, admission.Admitted, admission.TooMany, admission.TooMany)
	c.Done(alice)
	expect(t, c, alice, 0, admission.Admitted)
	c.Done(alice)
	expect(t, c, alice, 0, admission.TooFast, admission.TooFast)
	expect(t, c, alice, second, admission.Admitted)
}

// TestDoneTooOften: what never began takes nothing away.
func TestDoneTooOften(t *testing.T) {
	c := newControl(t, admission.Config{MaxPerClient: 1})
	c.Done(alice)
	c.Done(alice)
	expect(t, c, alice, 0, admission.Admitted, admission.TooMany)
}

func TestAdopt(t *testing.T) {
	old := newControl(t, admission.Config{MaxPerClient: 2, Rate: 1, Burst: 3})
	expect(t, old, alice, 0, admission.Admitted, admission.Admitted)
	c := newControl(t, admission.Config{MaxPerClient: 3, Rate: 1, Burst: 3, MaxClients: 1000})
	if !c.Adopt(old) {
		t.Fatal("not adopted")
	}
	expect(t, c, alice, 0, admission.Admitted, admission.TooMany)
	expect(t, old, alice, 0, admission.TooMany)
	c.Done(alice) // began at old
	old.Done(alice)
	old.Done(alice) // began at c
	expect(t, c, alice, 0, admission.TooFast)
	expect(t, c, alice, 9*second, admission.Admitted, admission.Admitted, admission.Admitted, admission.TooMany)
}

// TestAdoptRate: a stamp that slow limits put far ahead does not lock a client
// out under faster ones.
func TestAdoptRate(t *testing.T) {
	old := newControl(t, admission.Config{Rate: 0.001, Burst: 1})
	expect(t, old, alice, 0, admission.Admitted, admission.TooFast)
	c := newControl(t, admission.Config{Rate: 10, Burst: 10})
	if !c.Adopt(old) {
		t.Fatal("not adopted")
	}
	expect(t, c, alice, 0, admission.TooFast)
	expect(t, c, alice, second/10, admission.Admitted, admission.TooFast)
}

func TestAdoptRefused(t *testing.T) {
	base := admission.Config{MaxPerClient: 2, Rate: 5}
	for name, change := range map[string]func(*admission.Config){
		"prefix of IPv4":      func(c *admission.Config) { c.Bits4 = 24 },
		"prefix of IPv6":      func(c *admission.Config) { c.Bits6 = 56 },
		"flows not limited":   func(c *admission.Config) { c.MaxPerClient = 0 },
		"nothing is limited":  func(c *admission.Config) { c.MaxPerClient, c.Rate = 0, 0 },
		"only lists are left": func(c *admission.Config) { *c = admission.Config{Deny: prefixes("::/0")} },
	} {
		changed := base
		change(&changed)
		old := newControl(t, base)
		expect(t, old, alice, 0, admission.Admitted)
		if newControl(t, changed).Adopt(old) || newControl(t, base).Adopt(newControl(t, changed)) {
			t.Errorf("%s: adopted", name)
		}
		old.Done(alice)
	}
	if newControl(t, base).Adopt(nil) {
		t.Error("nothing: adopted")
	}
	if !newControl(t, admission.Config{Rate: 1}).Adopt(newControl(t, admission.Config{})) {
		t.Error("no table: nothing is lost, but not adopted")
	}
}

// TestAdoptResize: a smaller table keeps all who have something to remember,
// a larger one has room for more.
func TestAdoptResize(t *testing.T) {
	clients := make([]netip.Addr, 3000)
	for i := range clients {
		clients[i] = netip.AddrFrom4([4]byte{198, 18, byte(i >> 8), byte(i)})
	}
	old := newControl(t, admission.Config{MaxPerClient: 1, MaxClients: 10000})
	for _, a := range clients[:2000] {
		expect(t, old, a, 0, admission.Admitted)
	}
	for _, a := range clients[:1000] {
		old.Done(a)
	}
	small := newControl(t, admission.Config{MaxPerClient: 1, MaxClients: 10})
	small.Adopt(old)
	if n := small.Clients(); n != 1000 {
		t.Errorf("%d clients, want the 1000 with flows", n)
	}
	for _, a := range clients[1000:2000] {
		expect(t, small, a, second, admission.TooMany)
	}
	for _, a := range clients[2000:] {
		expect(t, small, a, second, admission.TableFull)
	}
	large := newControl(t, admission.Config{MaxPerClient: 1, MaxClients: 10000})
	large.Adopt(small)
	for _, a := range clients[2000:] {
		expect(t, large, a, second, admission.Admitted, admission.TooMany)
	}
}

// TestReuse: however many clients come one after the other, those that are gone
// make room, and the table stays as it is.
func TestReuse(t *testing.T) {
	c := newControl(t, admission.Config{MaxPerClient: 1, Rate: 1000, Burst: 1, MaxClients: 5000})
	for i := range 100000 {
		a := netip.AddrFrom4([4]byte{198, 18 + byte(i>>16), byte(i >> 8), byte(i)})
		expect(t, c, a, int64(i)*second/1e6, admission.Admitted)
		c.Done(a)
	}
	if n := c.Clients(); n > 5000 {
		t.Errorf("%d clients", n)
	}
}

// TestRace: many goroutines, reloads in between. No client ever has more than its
// limit, and all are at none in the end.
func TestRace(t *testing.T) {
	const limit, workers = 3, 8
	config := admission.Config{MaxPerClient: limit, MaxClients: 100}
	current := newControl(t, config)
	var mu sync.RWMutex
	var open [16]struct {
		sync.Mutex
		flows, most int
	}
	var all sync.WaitGroup
	for w := range workers {
		all.Go(func() {
			for i := range 5000 {
				n := (i*7 + w) % len(open)
				a := netip.AddrFrom4([4]byte{198, 18, 0, byte(n)})
				mu.RLock()
				c := current
				mu.RUnlock()
				if c.Admit(a, 0) != admission.Admitted {
					continue
				}
				o := &open[n]
				o.Lock()
				o.flows++
				o.most = max(o.most, o.flows)
				o.Unlock()
				o.Lock()
				o.flows--
				o.Unlock()
				c.Done(a)
			}
		})
	}
	for i := range 50 {
		config.MaxClients = 100 + i%2*1000
		next := newControl(t, config)
		if !next.Adopt(current) {
			t.Error("not adopted")
		}
		mu.Lock()
		current = next
		mu.Unlock()
	}
	all.Wait()
	for n := range open {
		if open[n].most > limit {
			t.Errorf("client %d had %d flows, over %d", n, open[n].most, limit)
		}
		a := netip.AddrFrom4([4]byte{198, 18, 0, byte(n)})
		expect(t, current, a, 0, admission.Admitted, admission.Admitted, admission.Admitted, admission.TooMany)
	}
}
