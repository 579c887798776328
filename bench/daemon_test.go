package main

import (
	"net/netip"
	"testing"

	"github.com/tproxyd/tproxyd/internal/lab"
)

// The list of tproxyd-full has as many prefixes as it says, lets everybody pass
// who takes part, and none of its prefixes makes another one idle.
func TestDenied(t *testing.T) {
	list := denied()
	if len(list) != fullDenied {
		t.Errorf("%d prefixes, want %d", len(list), fullDenied)
	}
	within := netip.MustParsePrefix("198.18.0.0/15")
	clients := netip.MustParsePrefix(lab.ClientRange4)
	lengths := map[int]int{}
	for i, p := range list {
		lengths[p.Bits()]++
		if p != p.Masked() || !within.Contains(p.Addr()) {
			t.Errorf("%s is no prefix within %s", p, within)
		}
		if p.Overlaps(clients) {
			t.Errorf("%s has clients of %s", p, clients)
		}
		for _, a := range []string{lab.ClientIP4, lab.ProxyServerIP4, lab.ServerIP4} {
			if p.Contains(netip.MustParseAddr(a)) {
				t.Errorf("%s contains %s", p, a)
			}
		}
		if i > 0 && p.Overlaps(list[i-1]) {
			t.Errorf("%s overlaps %s", p, list[i-1])
		}
	}
	if len(lengths) < 9 {
		t.Errorf("lengths %v, want many different ones", lengths)
	}
}
