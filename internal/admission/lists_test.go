package admission_test

import (
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/tproxyd/tproxyd/internal/admission"
)

func TestLists(t *testing.T) {
	allow := prefixes("198.18.0.0/16", "198.18.1.128/25", "2001:db8::/32", "::ffff:203.0.113.0/120", "198.18.9.1/32")
	deny := prefixes("198.18.1.0/24", "198.18.1.200/32", "2001:db8:1::/48", "198.18.9.1/32")
	both := newControl(t, admission.Config{Allow: allow, Deny: deny})
	onlyDeny := newControl(t, admission.Config{Deny: deny})
	neither := newControl(t, admission.Config{})
	for _, c := range []struct {
		address                 string
		both, onlyDeny, neither admission.Verdict
	}{
		{"198.18.0.1", admission.Admitted, admission.Admitted, admission.Admitted},
		{"198.18.1.1", admission.Denied, admission.Denied, admission.Admitted},
		{"198.18.1.129", admission.Admitted, admission.Denied, admission.Admitted},
		{"198.18.1.200", admission.Denied, admission.Denied, admission.Admitted},
		{"198.18.9.1", admission.Denied, admission.Denied, admission.Admitted},
		{"198.19.0.1", admission.Denied, admission.Admitted, admission.Admitted},
		{"203.0.113.7", admission.Admitted, admission.Admitted, admission.Admitted},
		{"::ffff:203.0.113.7", admission.Admitted, admission.Admitted, admission.Admitted},
		{"::ffff:198.18.1.1", admission.Denied, admission.Denied, admission.Admitted},
		{"2001:db8::1", admission.Admitted, admission.Admitted, admission.Admitted},
		{"2001:db8:1::1", admission.Denied, admission.Denied, admission.Admitted},
		{"2001:db8:1::1%eth0", admission.Denied, admission.Denied, admission.Admitted},
		{"fe80::1%eth0", admission.Denied, admission.Admitted, admission.Admitted},
	} {
		a := netip.MustParseAddr(c.address)
		got := [3]admission.Verdict{both.Admit(a, 0), onlyDeny.Admit(a, 0), neither.Admit(a, 0)}
		if want := [3]admission.Verdict{c.both, c.onlyDeny, c.neither}; got != want {
			t.Errorf("%v: %v, want %v", a, got, want)
		}
	}
	if v := neither.Admit(netip.Addr{}, 0); v != admission.Denied {
		t.Errorf("no address: %v", v)
	}
}

// TestListsAgree compares with looking at each prefix of both lists.
func TestListsAgree(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	all := many(2000)
	for _, c := range []admission.Config{
		{Allow: all[:1200], Deny: all[800:]}, {Allow: all}, {Deny: all},
	} {
		control := newControl(t, c)
		for range 2000 {
			a := near(rng, all[rng.IntN(len(all))].Addr())
			if got, want := control.Admit(a, 0), naive(c, a); got != want {
				t.Fatalf("%v: %v, want %v", a, got, want)
			}
		}
	}
}

// near is a with some of its last bits changed.
func near(rng *rand.Rand, a netip.Addr) netip.Addr {
	b := a.AsSlice()
	for i := rng.IntN(len(b)); i < len(b); i++ {
		b[i] ^= byte(rng.Uint32())
	}
	changed, _ := netip.AddrFromSlice(b)
	return changed
}

func naive(c admission.Config, a netip.Addr) admission.Verdict {
	longest, admits := -1, len(c.Allow) == 0
	for _, p := range c.Allow {
		if p.Contains(a) && p.Bits() > longest {
			longest, admits = p.Bits(), true
		}
	}
	for _, p := range c.Deny {
		if p.Contains(a) && p.Bits() >= longest {
			longest, admits = p.Bits(), false
		}
	}
	if admits {
		return admission.Admitted
	}
	return admission.Denied
}
