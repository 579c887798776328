package netnstest_test

import (
	"testing"

	"github.com/tproxyd/tproxyd/internal/netnstest"
)

// A test package needs a TestMain, and then its tests have networks.
func Example() {
	_ = func(m *testing.M) { netnstest.Main(m) } // func TestMain
	_ = func(t *testing.T) {                     // func TestProxy
		l := netnstest.New(t)
		nft := netnstest.Need(t, "nft", "nftables")
		if err := l.Proxy.Command(t.Context(), nft, "list", "ruleset").Run(); err != nil {
			t.Error(err)
		}
	}
}
