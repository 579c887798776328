package lab_test

import (
	"errors"
	"net"
	"testing"

	"github.com/tproxyd/tproxyd/internal/lab"
)

// TestNetwork joins two hosts over a third, and three on one segment.
func TestNetwork(t *testing.T) {
	n, err := lab.NewNetwork()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	hosts := make(map[string]*lab.Host)
	for _, name := range []string{"client", "router", "server", "neighbour"} {
		h, err := n.Host(name)
		if err != nil {
			t.Fatal(err)
		}
		hosts[name] = h
	}
	if err := errors.Join(
		n.Segment("left"), n.Segment("right"),
		n.Attach(hosts["client"], "eth0", "left", "198.18.1.2/24", "2001:db8:1::2/64"),
		n.Attach(hosts["router"], "eth0", "left", "198.18.1.1/24", "2001:db8:1::1/64"),
		n.Attach(hosts["router"], "eth1", "right", "198.18.2.1/24", "2001:db8:2::1/64"),
		n.Attach(hosts["server"], "eth0", "right", "198.18.2.2/24", "2001:db8:2::2/64"),
		n.Attach(hosts["neighbour"], "eth0", "right", "198.18.2.3/24", "2001:db8:2::3/64"),
		hosts["client"].AddRoute("eth0", "", "198.18.1.1"), hosts["client"].AddRoute("eth0", "", "2001:db8:1::1"),
		hosts["client"].Own(lab.ClientRange4), hosts["client"].Own(lab.ClientRange6),
		hosts["router"].AddRoute("eth0", lab.ClientRange4, "198.18.1.2"),
		hosts["router"].AddRoute("eth0", lab.ClientRange6, "2001:db8:1::2"),
		hosts["server"].AddRoute("eth0", "", "198.18.2.1"), hosts["server"].AddRoute("eth0", "", "2001:db8:2::1"),
	); err != nil {
		t.Fatal(err)
	}
	for address, locals := range map[string][]string{
		"198.18.2.2": {"198.18.1.2", "198.18.16.9"}, "2001:db8:2::2": {"2001:db8:1::2", "2001:db8:16::9"},
	} {
		target := net.JoinHostPort(address, "80")
		sayWho(t, hosts["server"], target)
		for _, local := range locals {
			from := net.JoinHostPort(local, "4000")
			if got, err := ask(t.Context(), hosts["client"], from, target); got != from || err != nil {
				t.Errorf("%s to %s: server saw %q, %v", from, target, got, err)
			}
		}
		if _, err := ask(t.Context(), hosts["neighbour"], "", target); err != nil {
			t.Error(err)
		}
	}
	if err := n.Segment("left"); err == nil {
		t.Error("a segment was made twice")
	}
	if err := n.Attach(hosts["client"], "eth1", "nowhere"); err == nil {
		t.Error("a host was attached to nothing")
	}
}
