package admission_test

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/tproxyd/tproxyd/internal/admission"
)

// addresses are n that lie near the prefixes, so that the trie is walked.
func addresses(all []netip.Prefix, n int) []netip.Addr {
	list := make([]netip.Addr, n)
	for i := range list {
		list[i] = all[i*len(all)/n].Addr().Next()
	}
	return list
}

// limited has n prefixes, half of them denied, and both limits.
func limited(t testing.TB, n int) (*admission.Control, []netip.Addr) {
	t.Helper()
	all := many(n)
	c := newControl(t, admission.Config{
		Allow: append(prefixes("0.0.0.0/0", "::/0"), all[:n/2]...), Deny: all[n/2:],
		MaxPerClient: 10, Rate: 1e6, Burst: 10,
	})
	return c, addresses(all, 1024)
}

func BenchmarkAdmit(b *testing.B) {
	for _, n := range []int{1000, 100000} {
		c, clients := limited(b, n)
		b.Run(fmt.Sprintf("%dPrefixes", n), func(b *testing.B) {
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				a := clients[i%len(clients)]
				if c.Admit(a, int64(i)*1000) == admission.Admitted {
					c.Done(a)
				}
			}
		})
	}
}

func BenchmarkListsOnly(b *testing.B) {
	for _, n := range []int{1000, 100000} {
		all := many(n)
		c, clients := newControl(b, admission.Config{Deny: all}), addresses(all, 1024)
		b.Run(fmt.Sprintf("%dPrefixes", n), func(b *testing.B) {
			for i := 0; b.Loop(); i++ {
				c.Admit(clients[i%len(clients)], 0)
			}
		})
	}
}

// BenchmarkFull is a newcomer who finds the table full of busy clients: the
// longest search.
func BenchmarkFull(b *testing.B) {
	c := newControl(b, admission.Config{MaxPerClient: 1, Bits6: 128, MaxClients: 1000})
	clients := addresses(many(4096), 4096)
	for _, a := range clients {
		c.Admit(a, 0)
	}
	for b.Loop() {
		c.Admit(alice, 0)
	}
}

func TestAllocations(t *testing.T) {
	c, clients := limited(t, 1000)
	i := 0
	if n := testing.AllocsPerRun(5000, func() {
		a := clients[i%len(clients)]
		if c.Admit(a, int64(i)) == admission.Admitted && i%3 == 0 {
			c.Done(a)
		}
		i++
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
