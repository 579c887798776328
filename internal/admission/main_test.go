package admission_test

import (
	"net/netip"
	"testing"

	"go.uber.org/goleak"

	"github.com/tproxyd/tproxyd/internal/admission"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newControl(t testing.TB, c admission.Config) *admission.Control {
	t.Helper()
	control, err := admission.New(c)
	if err != nil {
		t.Fatal(err)
	}
	return control
}

func prefixes(all ...string) []netip.Prefix {
	list := make([]netip.Prefix, len(all))
	for i, s := range all {
		list[i] = netip.MustParsePrefix(s)
	}
	return list
}

// many are n different prefixes of both families.
func many(n int) []netip.Prefix {
	list := make([]netip.Prefix, n)
	for i := range list {
		// An odd multiplier spreads them over the whole address space.
		x := uint32(i) * 2654435761
		if i%4 == 0 {
			a := netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, byte(x >> 24), byte(x >> 16), byte(x >> 8), byte(x)})
			list[i] = netip.PrefixFrom(a, 40+i%25).Masked()
			continue
		}
		a := netip.AddrFrom4([4]byte{byte(x >> 24), byte(x >> 16), byte(x >> 8), byte(x)})
		list[i] = netip.PrefixFrom(a, 16+i%17).Masked()
	}
	return list
}
