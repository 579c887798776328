package deploy_test

import (
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/tproxyd/tproxyd/internal/lab"
	"github.com/tproxyd/tproxyd/internal/netnstest"
)

// flows is how many clients of each family there are.
const flows = 64

func ecmpService(name, port, source string) string {
	return fmt.Sprintf(`
[[service]]
name = %q
listen = ["%s:%s", "[%s]:%s"]
source = %q
balance = "maglev"
hash = "client-ip"
hash_seed = 7
  [[service.backend]]
  address = "198.18.2.21:8443"
  [[service.backend]]
  address = "198.18.2.22:8443"
  [[service.backend]]
  address = "198.18.2.23:8443"
  [[service.backend]]
  address = "[2001:db8:2::21]:8443"
  [[service.backend]]
  address = "[2001:db8:2::22]:8443"
`, name, lab.VIP4, port, lab.VIP6, port, source)
}

// An ecmpSite is a router that spreads a client's flows over two nodes.
type ecmpSite struct {
	client, router, backend *lab.Host
	nodes                   [2]*node
}

func newECMPSite(t *testing.T) *ecmpSite {
	t.Helper()
	netnstest.Need(t, "bird", "bird2")
	netnstest.Need(t, "birdc", "bird2")
	n := newNetwork(t)
	s := &ecmpSite{client: addHost(t, n, "client"), router: addHost(t, n, "router"), backend: addHost(t, n, "backend")}
	must(t,
		n.Segment("access"), n.Segment("front"), n.Segment("back"),
		n.Attach(s.client, "eth0", "access", "198.18.1.2/24", "2001:db8:1::2/64"),
		n.Attach(s.router, "eth0", "access", "198.18.1.1/24", "2001:db8:1::1/64"),
		n.Attach(s.router, "eth1", "front", "198.18.4.1/24", "2001:db8:4::1/64"),
		n.Attach(s.backend, "eth0", "back", "198.18.2.21/24", "198.18.2.22/24", "198.18.2.23/24", "2001:db8:2::21/64", "2001:db8:2::22/64"),
		s.client.AddRoute("eth0", "", "198.18.1.1"), s.client.AddRoute("eth0", "", "2001:db8:1::1"),
		s.client.Own(lab.ClientRange4), s.client.Own(lab.ClientRange6),
		s.router.AddRoute("eth0", lab.ClientRange4, "198.18.1.2"), s.router.AddRoute("eth0", lab.ClientRange6, "2001:db8:1::2"),
		s.router.Sysctl("ipv4.fib_multipath_hash_policy", "1"), s.router.Sysctl("ipv6.fib_multipath_hash_policy", "1"),
	)
	startNamed(t, s.backend, "198.18.2.21:8443", "198.18.2.22:8443", "198.18.2.23:8443", "[2001:db8:2::21]:8443", "[2001:db8:2::22]:8443")
	startBird(t, s.router, "bird/router.conf")
	config := "[admin]\nlisten = \"" + adminAddress + "\"\n" + ecmpService("web", "443", "host") + ecmpService("own", "444", "client")
	for i := range s.nodes {
		h := addHost(t, n, fmt.Sprintf("node%d", i+1))
		must(t,
			n.Attach(h, "eth0", "front", fmt.Sprintf("198.18.4.1%d/24", i+1), fmt.Sprintf("2001:db8:4::1%d/64", i+1)),
			n.Attach(h, "eth1", "back", fmt.Sprintf("198.18.2.1%d/24", i+1), fmt.Sprintf("2001:db8:2::1%d/64", i+1)),
			h.AddRoute("eth0", "", "198.18.4.1"), h.AddRoute("eth0", "", "2001:db8:4::1"),
		)
		s.nodes[i] = startNode(t, h, config, lab.VIP4, lab.VIP6)
		socket := startBird(t, h, "bird/node.conf", fmt.Sprintf("ROUTER_ID = 198.18.4.1%d;", i+1))
		startProgram(t, h, []string{"BIRDC=birdc -s " + socket}, "sh", replaced(t, "bird/announce.sh", checkCommand, builtCheck(t)))
	}
	return s
}

// startBird runs BIRD in a host and returns its control socket.
func startBird(t *testing.T, h *lab.Host, file string, edits ...string) string {
	t.Helper()
	// Three intervals must be more than a busy machine keeps a program waiting.
	config := edited(t, file, append(edits, "BFD_MS = 3000;")...)
	socket := filepath.Join(t.TempDir(), "bird.ctl")
	startProgram(t, h, nil, "bird", "-f", "-c", config, "-s", socket, "-P", socket+".pid")
	netnstest.Eventually(t, patience, func() bool {
		_, err := try(t, h, nil, "birdc", "-s", socket, "show", "status")
		return err == nil
	}, "BIRD answers")
	return socket
}

// spread waits until the router has routes to both virtual addresses over so
// many nodes.
func (s *ecmpSite) spread(t *testing.T, nodes int) {
	t.Helper()
	nl, err := s.router.Netlink()
	if err != nil {
		t.Fatal(err)
	}
	defer nl.Close()
	netnstest.Eventually(t, settling, func() bool {
		for _, vip := range []string{lab.VIP4, lab.VIP6} {
			routes, err := nl.RouteListFiltered(netlink.FAMILY_ALL, &netlink.Route{Dst: netlink.NewIPNet(net.ParseIP(vip))}, netlink.RT_FILTER_DST)
			if err != nil {
				t.Fatal(err)
			}
			n := 0
			for _, r := range routes {
				n += max(1, len(r.MultiPath))
			}
			if n != nodes {
				return false
			}
		}
		return true
	}, fmt.Sprintf("the router has routes over %d nodes", nodes))
}

// An outcome is who served a client.
type outcome struct{ node, backend string }

// all connects once from each client to a port of the virtual address of its
// family.
func (s *ecmpSite) all(t *testing.T, port string) map[string]outcome {
	t.Helper()
	got := make(map[string]outcome)
	for i := range flows {
		for local, vip := range map[string]string{
			fmt.Sprintf("198.18.16.%d", i+1): lab.VIP4, fmt.Sprintf("2001:db8:16::%x", i+1): lab.VIP6,
		} {
			peer, backend := served(t, s.client, local, net.JoinHostPort(vip, port))
			got[local] = outcome{peer, backend}
		}
	}
	return got
}

// nodeOf is the number of the node whose address a backend saw.
func nodeOf(address string) int {
	switch {
	case strings.HasSuffix(address, ".2.11"), strings.HasSuffix(address, ":2::11"):
		return 1
	case strings.HasSuffix(address, ".2.12"), strings.HasSuffix(address, ":2::12"):
		return 2
	}
	return 0
}

// counts is how many flows of each family each node had.
func counts(t *testing.T, all map[string]outcome) map[string]int {
	t.Helper()
	n := make(map[string]int)
	for local, o := range all {
		node := nodeOf(o.node)
		if node == 0 {
			t.Errorf("%s: the backend saw %s, which is no node", local, o.node)
		}
		family := "IPv4"
		if strings.Contains(local, ":") {
			family = "IPv6"
		}
		n[fmt.Sprintf("%s by node %d", family, node)]++
	}
	return n
}

// TestECMP spreads clients over two nodes, kills the daemon of one, and brings
// it back. A client has the same backend all the while.
func TestECMP(t *testing.T) {
	s := newECMPSite(t)
	s.spread(t, 2)
	first := s.all(t, "443")
	n := counts(t, first)
	t.Logf("both nodes: %v", n)
	for _, who := range []string{"IPv4 by node 1", "IPv4 by node 2", "IPv6 by node 1", "IPv6 by node 2"} {
		if n[who] < flows/10 {
			t.Errorf("%d of %d flows %s", n[who], flows, who)
		}
	}
	s.nodes[0].daemon.kill()
	killed := time.Now()
	s.spread(t, 1)
	t.Logf("after kill -9 the node's routes were gone in %v", time.Since(killed).Round(10*time.Millisecond))
	second := s.all(t, "443")
	if n := counts(t, second); n["IPv4 by node 2"] != flows || n["IPv6 by node 2"] != flows {
		t.Errorf("node 2 alone: %v", n)
	}
	s.same(t, first, second)
	s.nodes[0].start(t)
	s.spread(t, 2)
	third := s.all(t, "443")
	if n := counts(t, third); n["IPv4 by node 1"] == 0 || n["IPv6 by node 1"] == 0 {
		t.Errorf("node 1 is back: %v", n)
	}
	s.same(t, first, third)
	s.ownSource(t)
}

// same fails the test for each client whose backend has changed.
func (s *ecmpSite) same(t *testing.T, a, b map[string]outcome) {
	t.Helper()
	for local := range a {
		if a[local].backend != b[local].backend {
			t.Errorf("%s: %v, then %v", local, a[local], b[local])
		}
	}
}

// ownSource is source = "client" with bird/return.nft on the backends, and
// before that without.
func (s *ecmpSite) ownSource(t *testing.T) {
	t.Helper()
	must(t, s.backend.AddRoute("eth0", "", "198.18.2.11"), s.backend.AddRoute("eth0", "", "2001:db8:2::11"))
	lost := false
	for i := 0; i < flows && !lost; i++ {
		_, _, err := attempt(t, s.client, fmt.Sprintf("198.18.16.%d", i+1), net.JoinHostPort(lab.VIP4, "444"))
		lost = err != nil
	}
	if !lost {
		t.Error("all flows are answered by one node: the router does not spread them, and what follows says nothing")
	}
	s.answerByNode(t)
	for local, o := range s.all(t, "444") {
		if o.node != local {
			t.Errorf("%s: the backend saw %s", local, o.node)
		}
	}
	for _, node := range s.nodes {
		if n := metric(t, &lab.Lab{Proxy: node.Host}, `tproxyd_connections_total{service="own"}`); n == 0 {
			t.Errorf("%s served nobody with its own address", node.Name)
		}
	}
}

// answerByNode does on the backends what bird/return.nft says.
func (s *ecmpSite) answerByNode(t *testing.T) {
	t.Helper()
	var edits []string
	for i, node := range s.nodes {
		nl, err := node.Netlink()
		if err != nil {
			t.Fatal(err)
		}
		link, err := nl.LinkByName("eth1")
		nl.Close()
		if err != nil {
			t.Fatal(err)
		}
		edits = append(edits, fmt.Sprintf("node%d = %s", i+1, link.Attrs().HardwareAddr))
		for family, gateway := range map[string]string{"-4": "198.18.2.1%d", "-6": "2001:db8:2::1%d"} {
			table, mark := fmt.Sprint(29825+i), fmt.Sprintf("%#x", 0x7481+i)
			l := &lab.Lab{Proxy: s.backend}
			run(t, l, nil, "ip", family, "rule", "add", "priority", "1000", "fwmark", mark, "lookup", table)
			run(t, l, nil, "ip", family, "route", "add", "default", "via", fmt.Sprintf(gateway, i+1), "table", table)
		}
	}
	run(t, &lab.Lab{Proxy: s.backend}, nil, "nft", "-f", edited(t, "bird/return.nft", edits...))
}
