package deploy_test

import (
	"errors"
	"net"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tproxyd/tproxyd/internal/lab"
	"github.com/tproxyd/tproxyd/internal/netnstest"
)

// throughUDPProxy is throughProxy for datagrams. The larger ones are in
// fragments on their way, of which only the first has ports.
func throughUDPProxy(t *testing.T, l *lab.Lab, cfg proxyConfig, to endpoint, direct *udpServer) {
	t.Helper()
	sizes := []int{1, 20000}
	proxy := startUDPProxy(t, l, cfg)
	defer proxy.close()
	before := direct.received.Load()
	for _, f := range families {
		for _, size := range sizes {
			reachesByUDP(t, l.Client, at(to.host(f), to.port), size)
		}
	}
	if got, want := proxy.received.Load(), int64(len(families)*len(sizes)); got != want {
		t.Errorf("the proxy had %d datagrams, want %d", got, want)
	}
	if got := direct.received.Load() - before; cfg.backend != nil && got != 0 {
		t.Errorf("%d datagrams went by without the proxy", got)
	}
}

// TestTCPAlone has rules that are not about UDP: it passes, and TCP does not.
func TestTCPAlone(t *testing.T) {
	tests := []struct {
		firewall
		mode string
	}{
		{nftFirewall("tproxyd-vip.nft", "tproxyd_vip", "protocols = { tcp }"), "vip"},
		{iptablesFirewall("vip.sh", "PROTOCOLS=tcp"), "vip"},
		{nftFirewall("tproxyd-intercept.nft", "tproxyd_intercept"), "intercept"},
		{iptablesFirewall("intercept.sh"), "intercept"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			l := newLab(t)
			ownVIPs(t, l)
			_, target := modeOf(tt.mode)
			startBackend(t, l.Server, each(target.port, target.host)...)
			startUDPBackend(t, l.Server, each(target.port, target.host)...)
			run(t, l, nil, "sh", "policy-routing.sh", "up")
			tt.up(t, l)
			for _, f := range families {
				reachesByUDP(t, l.Client, at(target.host(f), target.port), 1)
			}
			silent(t, l.Client, at(families[0].client, 0), at(target.host(families[0]), target.port))
		})
	}
}

// TestUDPAlone is the same the other way round.
func TestUDPAlone(t *testing.T) {
	firewalls := []firewall{
		nftFirewall("tproxyd-intercept.nft", "tproxyd_intercept", "ports = { }", "udp_ports = { 53, 80 }"),
		iptablesFirewall("intercept.sh", "PORTS=none", "UDP_PORTS=53 80"),
	}
	for _, firewall := range firewalls {
		t.Run(firewall.name, func(t *testing.T) {
			l := newLab(t)
			startBackend(t, l.Server, each(interceptPort, foreigns)...)
			startUDPBackend(t, l.Server, each(interceptPort, foreigns)...)
			run(t, l, nil, "sh", "policy-routing.sh", "up")
			firewall.up(t, l)
			for _, f := range families {
				reaches(t, l.Client, at(f.client, 0), at(f.foreign, interceptPort), f.client)
			}
			silentByUDP(t, l.Client, at(families[0].foreign, interceptPort))
		})
	}
}

// TestToEveryone has the proxy's host serve what is sent to all on an
// intercepted port, as a DHCP server has to.
func TestToEveryone(t *testing.T) {
	everyone := map[string]string{"udp4": at("255.255.255.255", interceptPort), "udp6": at("ff02::1%"+lab.EndLink, interceptPort)}
	for tool, firewall := range interceptRules {
		t.Run(tool, func(t *testing.T) {
			l := newLab(t)
			run(t, l, nil, "sh", "policy-routing.sh", "up")
			firewall.up(t, l)
			proxy := startUDPProxy(t, l, proxyConfig{listen: each(listenPort, loopbacks)})
			here := startUDPServer(t, func(datagram) {}, listenUDP(t, l.Proxy, net.ListenConfig{}, each(interceptPort, anys)...)...)
			for network, address := range everyone {
				before := here.received.Load()
				// A zone is looked up in the namespace of the thread.
				err := l.Client.Do(func() error {
					c, err := net.ListenPacket(network, ":0")
					if err != nil {
						return err
					}
					defer func() { _ = c.Close() }()
					to, err := net.ResolveUDPAddr(network, address)
					if err != nil {
						return err
					}
					_, err = c.WriteTo([]byte("anybody there?"), to)
					return err
				})
				if err != nil {
					t.Fatal(err)
				}
				netnstest.Eventually(t, patience, func() bool { return here.received.Load() > before },
					"what is sent to "+address+" arrives")
			}
			if n := proxy.received.Load(); n != 0 {
				t.Errorf("%d datagrams to everyone were intercepted", n)
			}
		})
	}
}

// refusedByUDP sends with the client's address and port until the socket hears
// of an ICMP error, which goes to the client's address.
func refusedByUDP(t *testing.T, l *lab.Lab, f family) {
	t.Helper()
	source := net.UDPAddrFromAddrPort(netip.MustParseAddrPort(at(f.client, 4321)))
	c, err := dialUDP(l.Proxy, source, at(f.backend, backendPort))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	// Only then are errors other than a refusal told: ip(7).
	if err := receiveErrors(c.(*net.UDPConn), f); err != nil {
		t.Fatal(err)
	}
	netnstest.Eventually(t, patience, func() bool {
		_, err = c.Write([]byte("anybody there?"))
		return err != nil
	}, "an ICMP error arrives at the socket")
	if !errors.Is(err, unix.EHOSTUNREACH) {
		t.Errorf("%s: send with the client's address: got %v, want EHOSTUNREACH", f.name, err)
	}
}

func receiveErrors(c *net.UDPConn, f family) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	ctrl := raw.Control(func(fd uintptr) {
		if f.name == "IPv6" {
			err = unix.SetsockoptInt(int(fd), unix.SOL_IPV6, unix.IPV6_RECVERR, 1)
		} else {
			err = unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_RECVERR, 1)
		}
	})
	return errors.Join(ctrl, err)
}
