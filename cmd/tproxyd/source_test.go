package main

import (
	"net"
	"testing"

	"github.com/tproxyd/tproxyd/internal/lab"
)

// TestPoliciesSideBySide has a client whose port one service has chosen for
// another connection of that client. A service that uses the client's own port
// is not disturbed: the destinations differ.
func TestPoliciesSideBySide(t *testing.T) {
	b := newBed(t)
	sources := make(chan string, 2)
	b.serve(b.Server, ":81", func(c net.Conn) {
		sources <- c.RemoteAddr().String()
		echo(c)
	})
	const chooses = `
[[service]]
name = "chooses"
listen = ["` + lab.VIP4 + `:81", "[` + lab.VIP6 + `]:81"]
source = "client-ip"
  [[service.backend]]
  address = "` + lab.ServerIP4 + `:81"
  [[service.backend]]
  address = "[` + lab.ServerIP6 + `]:81"
`
	d := b.start(configuration("", "")+chooses, options{})
	for vip, target := range map[string]string{lab.VIP4: targets["intercept4"], lab.VIP6: targets["intercept6"]} {
		held := b.open(net.JoinHostPort(vip, "81"))
		local := <-sources
		c, err := b.Client.DialFrom(t.Context(), "tcp", local, target)
		if err != nil {
			t.Fatal(err)
		}
		if err := ping(c); err != nil {
			t.Errorf("from %s, which is in use towards another server: %v", local, err)
		}
		closeAll(t, c, net.Conn(held))
	}
	if m := d.idle(); m.sum("tproxyd_source_conflicts_total") != 0 {
		t.Error("a conflict was counted")
	}
}
