package deploy_test

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tproxyd/tproxyd/internal/lab"
	"github.com/tproxyd/tproxyd/internal/netnstest"
)

// Both modes, as each tool does them.
var (
	vipRules = map[string]firewall{
		"nft":      nftFirewall("tproxyd-vip.nft", "tproxyd_vip"),
		"iptables": iptablesFirewall("vip.sh"),
	}
	interceptRules = map[string]firewall{
		"nft":      nftFirewall("tproxyd-intercept.nft", "tproxyd_intercept", "udp_ports = { 80 }"),
		"iptables": iptablesFirewall("intercept.sh", "UDP_PORTS=80"),
	}
)

func defaultRules() []firewall {
	return []firewall{vipRules["nft"], vipRules["iptables"], interceptRules["nft"], interceptRules["iptables"]}
}

// TestBothModes has a virtual address on a port that is intercepted, too: it
// belongs to its own service, whichever rules were loaded first.
func TestBothModes(t *testing.T) {
	for tool, vip := range vipRules {
		for _, order := range [][]firewall{{vip, interceptRules[tool]}, {interceptRules[tool], vip}} {
			t.Run(tool+" "+order[0].name+" first", func(t *testing.T) {
				l := newLab(t)
				run(t, l, nil, "sh", "policy-routing.sh", "up")
				for _, firewall := range order {
					firewall.up(t, l)
				}
				startBackend(t, l.Server, each(backendPort, backends)...)
				startBackend(t, l.Server, each(interceptPort, foreigns)...)
				startUDPBackend(t, l.Server, each(backendPort, backends)...)
				startUDPBackend(t, l.Server, each(interceptPort, foreigns)...)
				vipConfig := proxyConfig{listen: each(interceptPort, vips), backend: backendOf}
				interceptConfig := proxyConfig{listen: each(listenPort, loopbacks)}
				vip, udpVIP := startProxy(t, l, vipConfig), startUDPProxy(t, l, vipConfig)
				intercept, udpIntercept := startProxy(t, l, interceptConfig), startUDPProxy(t, l, interceptConfig)
				for _, f := range families {
					reaches(t, l.Client, at(f.client, 0), at(f.vip, interceptPort), f.client)
					reaches(t, l.Client, at(f.client, 0), at(f.foreign, interceptPort), f.client)
					reachesByUDP(t, l.Client, at(f.vip, interceptPort), 1)
					reachesByUDP(t, l.Client, at(f.foreign, interceptPort), 1)
				}
				if v, i := vip.accepted.Load(), intercept.accepted.Load(); v != 2 || i != 2 {
					t.Errorf("vip had %d connections and intercept %d, want 2 each", v, i)
				}
				if v, i := udpVIP.received.Load(), udpIntercept.received.Load(); v != 2 || i != 2 {
					t.Errorf("vip had %d datagrams and intercept %d, want 2 each", v, i)
				}
			})
		}
	}
}

// TestOwnAddresses leaves what goes to the proxy's host itself alone.
func TestOwnAddresses(t *testing.T) {
	for tool, firewall := range interceptRules {
		t.Run(tool, func(t *testing.T) {
			l := newLab(t)
			run(t, l, nil, "sh", "policy-routing.sh", "up")
			firewall.up(t, l)
			proxy := startProxy(t, l, proxyConfig{listen: each(listenPort, loopbacks)})
			udpProxy := startUDPProxy(t, l, proxyConfig{listen: each(listenPort, loopbacks)})
			own := []string{at("198.18.1.1", interceptPort), at("2001:db8:1::1", interceptPort)}
			startBackend(t, l.Proxy, own...)
			startUDPBackend(t, l.Proxy, own...)
			for i, f := range families {
				reaches(t, l.Client, at(f.client, 0), own[i], f.client)
				reachesByUDP(t, l.Client, own[i], 1)
			}
			if c, d := proxy.accepted.Load(), udpProxy.received.Load(); c != 0 || d != 0 {
				t.Errorf("%d connections and %d datagrams to the host itself were intercepted", c, d)
			}
		})
	}
}

// TestAnyAddress has a transparent listener on any address: that alone is no
// reason to take what passes by on its port.
func TestAnyAddress(t *testing.T) {
	const port = 8080
	for _, firewall := range defaultRules() {
		t.Run(firewall.name, func(t *testing.T) {
			l := newLab(t)
			run(t, l, nil, "sh", "policy-routing.sh", "up")
			firewall.up(t, l)
			startBackend(t, l.Server, each(port, foreigns)...)
			startUDPBackend(t, l.Server, each(port, foreigns)...)
			proxy := startProxy(t, l, proxyConfig{listen: each(port, anys)})
			udpProxy := startUDPProxy(t, l, proxyConfig{listen: each(port, anys)})
			for _, f := range families {
				reaches(t, l.Client, at(f.client, 0), at(f.foreign, port), f.client)
				reachesByUDP(t, l.Client, at(f.foreign, port), 1)
			}
			if c, d := proxy.accepted.Load(), udpProxy.received.Load(); c != 0 || d != 0 {
				t.Errorf("%d connections and %d datagrams were taken that no rule is about", c, d)
			}
		})
	}
}

// TestOutput intercepts what the proxy's host itself connects to, and not the
// proxy's own connections: that would be a loop, which ends in a time-out.
func TestOutput(t *testing.T) {
	l := newLab(t)
	run(t, l, nil, "sh", "policy-routing.sh", "up")
	interceptRules["nft"].up(t, l)
	nftFirewall("tproxyd-output.nft", "tproxyd_output", "udp_ports = { 80 }").up(t, l)
	startBackend(t, l.Server, each(interceptPort, foreigns)...)
	startUDPBackend(t, l.Server, each(interceptPort, foreigns)...)
	cfg := proxyConfig{listen: each(listenPort, loopbacks), sourceHost: true}
	proxy, udpProxy := startProxy(t, l, cfg), startUDPProxy(t, l, cfg)

	reaches(t, l.Proxy, "", at(families[0].foreign, interceptPort), "198.18.2.1")
	reaches(t, l.Proxy, "", at(families[1].foreign, interceptPort), "2001:db8:2::1")
	for _, f := range families {
		told, _, err := exchangeUDP(t.Context(), l.Proxy, at(f.foreign, interceptPort), 1, patience)
		if want := map[string]string{"IPv4": "198.18.2.1", "IPv6": "2001:db8:2::1"}[f.name]; err != nil || told.Addr().String() != want {
			t.Errorf("%s saw datagrams from %v, %v, want them from %s", f.foreign, told, err, want)
		}
	}
	if c, d := proxy.accepted.Load(), udpProxy.received.Load(); c != 2 || d != 2 {
		t.Errorf("the proxy had %d connections and %d datagrams, want 2 each", c, d)
	}
}

// TestNoIPv6 sets up what there is on a host where IPv6 is switched off.
func TestNoIPv6(t *testing.T) {
	l := newLab(t)
	if err := l.Client.Sysctl("ipv6.conf.lo.disable_ipv6", "1"); err != nil {
		t.Fatal(err)
	}
	commands := []string{"policy-routing.sh", "iptables/vip.sh", "iptables/intercept.sh"}
	for _, verb := range []string{"up", "down"} {
		for _, script := range commands {
			if out, err := try(t, l.Client, nil, "sh", script, verb); err != nil {
				t.Errorf("%s %s: %v\n%s", script, verb, err, out)
			}
		}
		out, err := try(t, l.Client, nil, "ip", "-4", "rule", "list", "fwmark", "0x7471")
		if err != nil || (out != "") != (verb == "up") {
			t.Errorf("after %s the policy rule is %q (%v)", verb, out, err)
		}
	}
}

// TestTimeWait connects again from the port of a connection that the proxy
// closed first and still has in TIME_WAIT.
func TestTimeWait(t *testing.T) {
	const clientPort = 40000
	firewalls := map[string]firewall{
		"nft":             interceptRules["nft"],
		"iptables":        interceptRules["iptables"],
		"iptables bypass": iptablesFirewall("intercept.sh", "WHEN_DOWN=bypass"),
	}
	for name, firewall := range firewalls {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			run(t, l, nil, "sh", "policy-routing.sh", "up")
			firewall.up(t, l)
			// Otherwise a client's RST ends TIME_WAIT, and Linux as a client gets
			// in with its second try.
			if err := l.Proxy.Sysctl("ipv4.tcp_rfc1337", "1"); err != nil {
				t.Fatal(err)
			}
			// A proxy that answers by itself, and closes first.
			addresses := each(listenPort, loopbacks)
			if strings.Contains(name, "bypass") {
				addresses = each(interceptPort, anys)
			}
			lns := listen(t, l.Proxy, net.ListenConfig{Control: transparent}, addresses...)
			startServer(t, func(*net.TCPConn) {}, lns...)
			for _, f := range families {
				for i := range 3 {
					c, err := l.Client.DialConfig(t.Context(),
						net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(f.client), Port: clientPort}, Timeout: patience},
						"tcp", at(f.foreign, interceptPort))
					if err != nil {
						t.Fatalf("%s: connection %d from the same port: %v", f.name, i+1, err)
					}
					_ = c.SetDeadline(time.Now().Add(patience))
					if n, err := c.Read(make([]byte, 1)); n != 0 || err == nil || !strings.Contains(err.Error(), "EOF") {
						t.Errorf("%s: read: got %d bytes and %v, want the proxy's EOF", f.name, n, err)
					}
					c.Close()
					inTimeWait(t, l, at(f.foreign, interceptPort))
				}
			}
		})
	}
}

// inTimeWait waits until the proxy has a socket in TIME_WAIT, which comes with
// the client's FIN.
func inTimeWait(t *testing.T, l *lab.Lab, local string) {
	t.Helper()
	netnstest.Eventually(t, patience, func() bool {
		return run(t, l, nil, "ss", "-Htn", "state", "time-wait", "src", local) != ""
	}, "the proxy has "+local+" in TIME_WAIT")
}

// TestICMP has a network refuse the backend with an ICMP error, which goes to
// the client's address and still has to reach the proxy's socket.
func TestICMP(t *testing.T) {
	const refuse = `
table inet site {
	chain input {
		type filter hook input priority filter; policy accept;
		meta l4proto { tcp, udp } th dport 8443 reject with icmpx type host-unreachable
	}
}
`
	for _, firewall := range defaultRules() {
		t.Run(firewall.name, func(t *testing.T) {
			l := newLab(t)
			run(t, l, nil, "sh", "policy-routing.sh", "up")
			firewall.up(t, l)
			cmd := l.Server.Command(t.Context(), netnstest.Need(t, "nft", "nftables"), "-f", "-")
			cmd.Stdin = strings.NewReader(refuse)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("load rules in the server: %v\n%s", err, out)
			}
			for _, f := range families {
				ctx, cancel := context.WithTimeout(t.Context(), patience)
				d := net.Dialer{Control: transparent, LocalAddr: &net.TCPAddr{IP: net.ParseIP(f.client)}}
				_, err := l.Proxy.DialConfig(ctx, d, "tcp", at(f.backend, backendPort))
				cancel()
				if !errors.Is(err, unix.EHOSTUNREACH) {
					t.Errorf("%s: connect with the client's address: got %v, want EHOSTUNREACH", f.name, err)
				}
				refusedByUDP(t, l, f)
			}
		})
	}
}
