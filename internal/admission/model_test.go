package admission_test

import (
	"encoding/binary"
	"math"
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/tproxyd/tproxyd/internal/admission"
)

// A model is what a Control does, in the simplest words: it forgets nobody,
// and counts tokens instead of keeping a stamp.
type model struct {
	admission.Config
	clients map[netip.Prefix]*modelClient
}

type modelClient struct {
	flows  int
	tokens int64 // in nanoseconds of refilling: a token is the interval
	at     int64
}

func newModel(c admission.Config) *model {
	return &model{Config: c, clients: make(map[netip.Prefix]*modelClient)}
}

func (m *model) interval() int64 { return int64(math.Round(1e9 / m.Rate)) }

func (m *model) full() int64 { return int64(m.Burst) * m.interval() }

func (m *model) refill(c *modelClient, now int64) {
	if m.Rate > 0 {
		c.tokens = min(m.full(), c.tokens+now-c.at)
	}
	c.at = now
}

// busy is the number of clients of whom there is something to remember.
func (m *model) busy(now int64) int {
	n := 0
	for _, c := range m.clients {
		m.refill(c, now)
		if c.flows > 0 || m.Rate > 0 && c.tokens < m.full() {
			n++
		}
	}
	return n
}

func (m *model) prefix(a netip.Addr) netip.Prefix {
	bits := m.Bits6
	if a.Is4() {
		bits = m.Bits4
	}
	return netip.PrefixFrom(a, bits).Masked()
}

func (m *model) admit(a netip.Addr, now int64) admission.Verdict {
	p := m.prefix(a)
	c := m.clients[p]
	if c == nil {
		c = &modelClient{at: now}
		if m.Rate > 0 {
			c.tokens = m.full()
		}
	}
	m.refill(c, now)
	known := c.flows > 0 || m.Rate > 0 && c.tokens < m.full()
	if !known && m.busy(now) >= m.MaxClients {
		return admission.TableFull
	}
	m.clients[p] = c
	if m.MaxPerClient > 0 && c.flows >= m.MaxPerClient {
		return admission.TooMany
	}
	if m.Rate > 0 {
		if c.tokens < m.interval() {
			return admission.TooFast
		}
		c.tokens -= m.interval()
	}
	if m.MaxPerClient > 0 {
		c.flows++
	}
	return admission.Admitted
}

func (m *model) done(a netip.Addr) { m.clients[m.prefix(a)].flows-- }

// compare does n things, chosen by next, to a Control and to the model. The
// table must be small enough for a search of all of it.
func compare(t *testing.T, c admission.Config, n int, next func() uint32) map[admission.Verdict]int {
	t.Helper()
	control, m := newControl(t, c), newModel(c)
	seen := make(map[admission.Verdict]int)
	var open []netip.Addr
	now := int64(1)
	for i := range n {
		x := next()
		switch {
		case x%8 < 5:
			a := netip.AddrFrom4([4]byte{198, 18, byte(x >> 8 & 3), byte(x >> 16 & 31)})
			if x&8 != 0 {
				a = netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 7: byte(x >> 8 & 3), 8: byte(x >> 16 & 31)})
			}
			got, want := control.Admit(a, now), m.admit(a, now)
			if got != want {
				t.Fatalf("step %d: %v at %d: %v, want %v", i, a, now, got, want)
			}
			seen[got]++
			if got == admission.Admitted {
				open = append(open, a)
			}
		case x%8 < 7 && len(open) > 0:
			j := int(x>>8) % len(open)
			control.Done(open[j])
			if c.MaxPerClient > 0 {
				m.done(open[j])
			}
			open = append(open[:j], open[j+1:]...)
		default:
			now += int64(x >> 3)
		}
	}
	return seen
}

var configs = []admission.Config{
	{MaxPerClient: 2, Bits4: 32, Bits6: 64, MaxClients: 32},
	{Rate: 20, Burst: 3, Bits4: 32, Bits6: 64, MaxClients: 4},
	{MaxPerClient: 3, Rate: 7.3, Burst: 2, Bits4: 24, Bits6: 72, MaxClients: 6},
	{MaxPerClient: 1, Rate: 3, Burst: 1, Bits4: 30, Bits6: 128, MaxClients: 1},
}

func TestModel(t *testing.T) {
	for i, c := range configs {
		rng := rand.New(rand.NewPCG(uint64(i), 1))
		seen := compare(t, c, 20000, rng.Uint32)
		t.Logf("%+v: %v", c, seen)
		for v, limited := range map[admission.Verdict]bool{
			admission.Admitted: true, admission.TableFull: true,
			admission.TooMany: c.MaxPerClient > 0, admission.TooFast: c.Rate > 0,
		} {
			if limited != (seen[v] > 0) {
				t.Errorf("%+v: %d times %v", c, seen[v], v)
			}
		}
	}
}

func FuzzModel(f *testing.F) {
	f.Add(uint8(0), []byte("\x00\x01\x00\x00\x00\x01\x00\x00\x05\x00\x00\x00\xff\xff\xff\xff"))
	f.Add(uint8(2), []byte("\x08\x01\x00\x00\x09\x02\x00\x00\x08\x01\x00\x00\x06\x01\x00\x00"))
	f.Fuzz(func(t *testing.T, which uint8, ops []byte) {
		compare(t, configs[int(which)%len(configs)], len(ops)/4, func() uint32 {
			x := binary.LittleEndian.Uint32(ops)
			ops = ops[4:]
			return x
		})
	})
}
