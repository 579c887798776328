package rules_test

import (
	"context"
	"io"
	"net"
	"net/netip"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tproxyd/tproxyd/internal/lab"
	"github.com/tproxyd/tproxyd/internal/netnstest"
	"github.com/tproxyd/tproxyd/internal/rules"
)

// family is what differs between the tests for IPv4 and IPv6.
type family struct {
	network           string
	client, server    string
	foreign, vip      string
	any, loopback     string
	foreignNet, other string
}

var bothFamilies = map[string]family{
	"v4": {
		"tcp4", lab.ClientIP4, lab.ServerIP4, lab.ForeignIP4, lab.VIP4,
		"0.0.0.0", "127.0.0.1", lab.ForeignNet4, "198.18.4.0/24",
	},
	"v6": {
		"tcp6", lab.ClientIP6, lab.ServerIP6, lab.ForeignIP6, lab.VIP6,
		"::", "::1", lab.ForeignNet6, "2001:db8:4::/64",
	},
}

func eachFamily(t *testing.T, test func(*testing.T, *lab.Lab, family)) {
	for name, f := range bothFamilies {
		t.Run(name, func(t *testing.T) { test(t, netnstest.New(t), f) })
	}
}

func web(in rules.Intercept) rules.Plan {
	in.Name, in.ToPort = "web", 15001
	if in.DestPorts == nil {
		in.DestPorts = []rules.Ports{rules.Port(80)}
	}
	return rules.Plan{ExemptMark: 99, Intercepts: []rules.Intercept{in}}
}

func TestIntercept(t *testing.T) {
	eachFamily(t, func(t *testing.T, l *lab.Lab, f family) {
		apply(t, web(rules.Intercept{
			DestPrefixes: []netip.Prefix{netip.MustParsePrefix(f.other), netip.MustParsePrefix(f.foreignNet)},
			DestPorts:    []rules.Ports{rules.Port(80), {First: 8000, Last: 8010}},
			IifName:      lab.ClientLink,
			OnFailure:    rules.Block,
		}))
		serve(t, l.Proxy, "proxy", f.network, net.JoinHostPort(f.any, "15001"), true)
		for _, port := range []string{"80", "81", "7999", "8000", "8010", "8011", "15001"} {
			serve(t, l.Server, "server", f.network, net.JoinHostPort(f.foreign, port), false)
		}
		serve(t, l.Server, "server", f.network, net.JoinHostPort(f.server, "80"), false)

		for _, port := range []string{"80", "8000", "8010"} {
			wantAnswer(t, l.Client, net.JoinHostPort(f.foreign, port), "proxy")
		}
		// The listener's own port elsewhere is not to be caught by its socket.
		for _, port := range []string{"81", "7999", "8011", "15001"} {
			wantAnswer(t, l.Client, net.JoinHostPort(f.foreign, port), "server")
		}
		wantAnswer(t, l.Client, net.JoinHostPort(f.server, "80"), "server")
		wantAnswer(t, l.Proxy, net.JoinHostPort(f.foreign, "80"), "server")
	})
}

// TestSynCookies has the kernel forget every connection until its last
// handshake packet, which then has no socket but the listener.
func TestSynCookies(t *testing.T) {
	eachFamily(t, func(t *testing.T, l *lab.Lab, f family) {
		if err := l.Proxy.Sysctl("ipv4.tcp_syncookies", "2"); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := l.Proxy.Sysctl("ipv4.tcp_syncookies", "1"); err != nil {
				t.Error(err)
			}
		})
		apply(t, web(rules.Intercept{OnFailure: rules.Block}))
		serve(t, l.Proxy, "proxy", f.network, net.JoinHostPort(f.any, "15001"), true)
		serve(t, l.Proxy, "vip", f.network, net.JoinHostPort(f.vip, "443"), true)
		wantAnswer(t, l.Client, net.JoinHostPort(f.foreign, "80"), "proxy")
		wantAnswer(t, l.Client, net.JoinHostPort(f.vip, "443"), "vip")
	})
}

func TestInterceptToAddress(t *testing.T) {
	eachFamily(t, func(t *testing.T, l *lab.Lab, f family) {
		apply(t, web(rules.Intercept{To: netip.MustParseAddr(f.loopback)}))
		serve(t, l.Proxy, "proxy", f.network, net.JoinHostPort(f.loopback, "15001"), true)
		wantAnswer(t, l.Client, net.JoinHostPort(f.foreign, "80"), "proxy")
		for _, of := range bothFamilies {
			if of.network != f.network {
				serve(t, l.Server, "server", of.network, net.JoinHostPort(of.foreign, "80"), false)
				wantAnswer(t, l.Client, net.JoinHostPort(of.foreign, "80"), "server")
			}
		}
	})
}

func TestInterceptEverything(t *testing.T) {
	eachFamily(t, func(t *testing.T, l *lab.Lab, f family) {
		apply(t, web(rules.Intercept{DestPorts: []rules.Ports{}}))
		serve(t, l.Proxy, "proxy", f.network, net.JoinHostPort(f.any, "15001"), true)
		wantAnswer(t, l.Client, net.JoinHostPort(f.foreign, "22"), "proxy")
		// The way to the host itself stays open.
		own := map[string]string{"tcp4": lab.ProxyClientIP4, "tcp6": lab.ProxyClientIP6}[f.network]
		serve(t, l.Proxy, "sshd", f.network, net.JoinHostPort(own, "22"), false)
		wantAnswer(t, l.Client, net.JoinHostPort(own, "22"), "sshd")
	})
}

func TestOnFailure(t *testing.T) {
	eachFamily(t, func(t *testing.T, l *lab.Lab, f family) {
		address := net.JoinHostPort(f.foreign, "80")
		serve(t, l.Server, "server", f.network, address, false)
		apply(t, web(rules.Intercept{OnFailure: rules.Bypass}))
		wantAnswer(t, l.Client, address, "server")
		apply(t, web(rules.Intercept{OnFailure: rules.Block}))
		wantSilence(t, l.Client, address)
		apply(t, web(rules.Intercept{OnFailure: rules.Block, IifName: lab.ServerLink}))
		wantAnswer(t, l.Client, address, "server")
	})
}

// TestTransparentSockets needs no intercept: sockets bring their own traffic.
func TestTransparentSockets(t *testing.T) {
	eachFamily(t, func(t *testing.T, l *lab.Lab, f family) {
		vip, server := net.JoinHostPort(f.vip, "443"), net.JoinHostPort(f.server, "80")
		serve(t, l.Proxy, "vip", f.network, vip, true)
		serve(t, l.Server, "server", f.network, server, false)
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		defer cancel()
		if got, _, err := ask(ctx, l.Client, vip); err == nil {
			t.Errorf("%s answers %q without any rules", vip, got)
		}
		apply(t, rules.Plan{})
		wantAnswer(t, l.Client, vip, "vip")

		spoofed := net.JoinHostPort(f.client, "4321")
		local, err := net.ResolveTCPAddr(f.network, spoofed)
		if err != nil {
			t.Fatal(err)
		}
		c, err := l.Proxy.DialConfig(ctx, net.Dialer{LocalAddr: local, Control: setTransparent}, f.network, server)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		got, err := io.ReadAll(c)
		if want := "server " + spoofed + " " + server; string(got) != want || err != nil {
			t.Errorf("answer %q, %v, want %q", got, err, want)
		}
	})
}

// exempt dials as the proxy itself does.
var exempt = net.Dialer{Control: func(_, _ string, c syscall.RawConn) error {
	var err error
	ctrl := c.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK, 99)
	})
	if ctrl != nil {
		return ctrl
	}
	return err
}}

func TestLocalOutput(t *testing.T) {
	eachFamily(t, func(t *testing.T, l *lab.Lab, f family) {
		address := net.JoinHostPort(f.foreign, "80")
		apply(t, web(rules.Intercept{LocalOutput: true, IifName: lab.ClientLink}))
		serve(t, l.Proxy, "proxy", f.network, net.JoinHostPort(f.any, "15001"), true)
		serve(t, l.Server, "server", f.network, address, false)
		wantAnswer(t, l.Client, address, "proxy")
		wantAnswer(t, l.Proxy, address, "proxy")

		c, err := l.Proxy.DialConfig(t.Context(), exempt, f.network, address)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		got, err := io.ReadAll(c)
		if want := "server " + c.LocalAddr().String() + " " + address; string(got) != want || err != nil {
			t.Errorf("exempt connection: answer %q, %v, want %q", got, err, want)
		}
	})
}
