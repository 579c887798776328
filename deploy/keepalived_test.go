package deploy_test

import (
	"net"
	"path/filepath"
	"testing"
	"time"

	"github.com/tproxyd/tproxyd/internal/lab"
	"github.com/tproxyd/tproxyd/internal/netnstest"
)

// The addresses of keepalived/keepalived.conf.
const (
	vrrpVIP4     = "198.18.1.10"
	vrrpVIP6     = "2001:db8:1::10"
	vrrpGateway4 = "198.18.2.1"
	vrrpGateway6 = "2001:db8:2::1"
)

const vrrpConfig = `
[admin]
listen = "` + adminAddress + `"

[[service]]
name = "web"
listen = ["` + vrrpVIP4 + `:443", "[` + vrrpVIP6 + `]:443"]
source = "client"
balance = "maglev"
hash = "client-ip"
hash_seed = 7

  [[service.backend]]
  address = "198.18.2.21:8443"
  [[service.backend]]
  address = "198.18.2.22:8443"
  [[service.backend]]
  address = "[2001:db8:2::21]:8443"
  [[service.backend]]
  address = "[2001:db8:2::22]:8443"
`

// A vrrpPair is two nodes with keepalived between a client and backends.
type vrrpPair struct {
	client *lab.Host
	nodes  [2]*node
}

func newVRRPPair(t *testing.T) *vrrpPair {
	t.Helper()
	netnstest.Need(t, "keepalived", "keepalived")
	netnstest.NeedRoot(t) // keepalived runs its script by setgroups(2)
	n := newNetwork(t)
	p := &vrrpPair{client: addHost(t, n, "client")}
	backend, node1, node2 := addHost(t, n, "backend"), addHost(t, n, "node1"), addHost(t, n, "node2")
	must(t,
		n.Segment("front"), n.Segment("back"),
		n.Attach(p.client, "eth0", "front", "198.18.1.2/24", "2001:db8:1::2/64"),
		n.Attach(node1, "eth0", "front", "198.18.1.11/24", "2001:db8:1::11/64"),
		n.Attach(node2, "eth0", "front", "198.18.1.12/24", "2001:db8:1::12/64"),
		n.Attach(node1, "eth1", "back", "198.18.2.11/24", "2001:db8:2::11/64"),
		n.Attach(node2, "eth1", "back", "198.18.2.12/24", "2001:db8:2::12/64"),
		n.Attach(backend, "eth0", "back", "198.18.2.21/24", "198.18.2.22/24", "2001:db8:2::21/64", "2001:db8:2::22/64"),
		// The part that is easily forgotten.
		backend.AddRoute("eth0", "", vrrpGateway4), backend.AddRoute("eth0", "", vrrpGateway6),
	)
	startNamed(t, backend, "198.18.2.21:8443", "198.18.2.22:8443", "[2001:db8:2::21]:8443", "[2001:db8:2::22]:8443")
	config := replaced(t, "keepalived/keepalived.conf", checkCommand, builtCheck(t))
	for i, h := range []*lab.Host{node1, node2} {
		p.nodes[i] = startNode(t, h, vrrpConfig, vrrpVIP4, vrrpVIP6)
		run(t, &lab.Lab{Proxy: h}, nil, "keepalived", "--config-test", "--config-id", h.Name, "--use-file", config)
		pid := filepath.Join(t.TempDir(), "pid")
		startProgram(t, h, nil, "keepalived", "--dont-fork", "--log-console", "--vrrp", "--config-id", h.Name,
			"--use-file", config, "--pid", pid, "--vrrp_pid", pid+"-vrrp")
	}
	return p
}

// moves waits until node i has all the addresses and the other none, and a
// client of each family is served with its own address by the same backend as
// want says, if it does.
func (p *vrrpPair) moves(t *testing.T, i int, want map[string]string) map[string]string {
	t.Helper()
	netnstest.Eventually(t, settling, func() bool {
		for _, a := range []string{vrrpVIP4, vrrpVIP6, vrrpGateway4, vrrpGateway6} {
			if !owns(t, p.nodes[i].Host, a) || owns(t, p.nodes[1-i].Host, a) {
				return false
			}
		}
		return true
	}, p.nodes[i].Name+" has the addresses")
	got := make(map[string]string)
	for local, vip := range map[string]string{"198.18.1.2": vrrpVIP4, "2001:db8:1::2": vrrpVIP6} {
		before := p.accepted(t, i)
		peer, backend := served(t, p.client, local, net.JoinHostPort(vip, "443"))
		if peer != local {
			t.Errorf("%s by %s: the backend saw %s", local, p.nodes[i].Name, peer)
		}
		if p.accepted(t, i) == before {
			t.Errorf("%s did not serve %s", p.nodes[i].Name, local)
		}
		if want != nil && backend != want[local] {
			t.Errorf("%s by %s: backend %s, was %s", local, p.nodes[i].Name, backend, want[local])
		}
		got[local] = backend
	}
	return got
}

func (p *vrrpPair) accepted(t *testing.T, i int) float64 {
	t.Helper()
	return metric(t, &lab.Lab{Proxy: p.nodes[i].Host}, `tproxyd_connections_total{service="web"}`)
}

// TestKeepalived kills the daemon of the node that serves, and brings it
// back.
func TestKeepalived(t *testing.T) {
	p := newVRRPPair(t)
	chosen := p.moves(t, 0, nil)
	p.nodes[0].daemon.kill()
	killed := time.Now()
	served(t, p.client, "198.18.1.2", net.JoinHostPort(vrrpVIP4, "443"))
	t.Logf("after kill -9, new connections were answered again in %v", time.Since(killed).Round(10*time.Millisecond))
	p.moves(t, 1, chosen)
	p.nodes[0].start(t)
	p.moves(t, 0, chosen)
}
