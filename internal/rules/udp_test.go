package rules_test

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/tproxyd/tproxyd/internal/lab"
	"github.com/tproxyd/tproxyd/internal/rules"
)

func TestInterceptUDP(t *testing.T) {
	eachFamily(t, func(t *testing.T, l *lab.Lab, f family) {
		apply(t, dns(rules.Intercept{
			DestPrefixes: []netip.Prefix{netip.MustParsePrefix(f.other), netip.MustParsePrefix(f.foreignNet)},
			DestPorts:    []rules.Ports{rules.Port(53), {First: 8000, Last: 8010}},
			IifName:      lab.ClientLink,
			OnFailure:    rules.Block,
		}))
		serveUDP(t, l.Proxy, "proxy", f.udp(), net.JoinHostPort(f.any, "15001"), true)
		for _, port := range []string{"53", "54", "7999", "8000", "8010", "8011", "15001"} {
			serveUDP(t, l.Server, "server", f.udp(), net.JoinHostPort(f.foreign, port), false)
		}
		serveUDP(t, l.Server, "server", f.udp(), net.JoinHostPort(f.server, "53"), false)

		for _, port := range []string{"53", "8000", "8010"} {
			wantReply(t, l.Client, f.udp(), net.JoinHostPort(f.foreign, port), "proxy")
		}
		// The listener's own port elsewhere is not to be caught by its socket.
		for _, port := range []string{"54", "7999", "8011", "15001"} {
			wantReply(t, l.Client, f.udp(), net.JoinHostPort(f.foreign, port), "server")
		}
		wantReply(t, l.Client, f.udp(), net.JoinHostPort(f.server, "53"), "server")
		wantReply(t, l.Proxy, f.udp(), net.JoinHostPort(f.foreign, "53"), "server")
	})
}

// TestProtocol has a proxy and a server of both protocols.
func TestProtocol(t *testing.T) {
	names := map[bool]string{false: "server", true: "proxy"}
	eachFamily(t, func(t *testing.T, l *lab.Lab, f family) {
		address := net.JoinHostPort(f.foreign, "80")
		serve(t, l.Proxy, "proxy", f.network, net.JoinHostPort(f.any, "15001"), true)
		serve(t, l.Server, "server", f.network, address, false)
		serveUDP(t, l.Proxy, "proxy", f.udp(), net.JoinHostPort(f.any, "15001"), true)
		serveUDP(t, l.Server, "server", f.udp(), address, false)
		for protocol, tcp := range map[rules.Protocol]bool{rules.TCPAndUDP: true, rules.TCP: true, rules.UDP: false} {
			for _, ports := range [][]rules.Ports{{}, {rules.Port(80)}} {
				apply(t, web(rules.Intercept{Protocol: protocol, DestPorts: ports, OnFailure: rules.Block}))
				wantAnswer(t, l.Client, address, names[tcp])
				wantReply(t, l.Client, f.udp(), address, names[protocol != rules.TCP])
			}
		}
	})
}

func TestOnFailureUDP(t *testing.T) {
	eachFamily(t, func(t *testing.T, l *lab.Lab, f family) {
		address := net.JoinHostPort(f.foreign, "80")
		serveUDP(t, l.Server, "server", f.udp(), address, false)
		apply(t, dns(rules.Intercept{OnFailure: rules.Bypass}))
		wantReply(t, l.Client, f.udp(), address, "server")
		apply(t, dns(rules.Intercept{OnFailure: rules.Block}))
		wantNoReply(t, l.Client, f.udp(), address)
		apply(t, dns(rules.Intercept{OnFailure: rules.Block, IifName: lab.ServerLink}))
		wantReply(t, l.Client, f.udp(), address, "server")
	})
}

// TestTransparentSocketsUDP needs no intercept: sockets bring their own
// traffic, and no more than that.
func TestTransparentSocketsUDP(t *testing.T) {
	eachFamily(t, func(t *testing.T, l *lab.Lab, f family) {
		vip, server := net.JoinHostPort(f.vip, "53"), net.JoinHostPort(f.server, "53")
		serveUDP(t, l.Proxy, "vip", f.udp(), vip, true)
		serveUDP(t, l.Server, "server", f.udp(), server, false)
		c, err := l.Client.Dial(t.Context(), f.udp(), vip)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if got, err := askUDP(c, 100, silence); err == nil {
			t.Errorf("%s answers %q without any rules", vip, got)
		}
		apply(t, rules.Plan{})
		wantReply(t, l.Client, f.udp(), vip, "vip")

		spoofed := net.JoinHostPort(f.client, "4321")
		up := spoof(t, l.Proxy, f.udp(), spoofed, server)
		wantReplyOn(t, up, "server", 100)
		// What others send to the address that is spoofed is the client's.
		serveUDP(t, l.Client, "client", f.udp(), spoofed, false)
		wantReply(t, l.Server, f.udp(), spoofed, "client")
		wantReplyOn(t, up, "server", 100)
	})
}

// TestFlowSocket has a client's flow on a socket of its own, which is bound to
// the address that the client speaks to. It takes that flow, and no other, from
// the listener.
func TestFlowSocket(t *testing.T) {
	eachFamily(t, func(t *testing.T, l *lab.Lab, f family) {
		apply(t, dns(rules.Intercept{OnFailure: rules.Block}))
		listener := listenUDP(t, l.Proxy, f.udp(), net.JoinHostPort(f.any, "15001"), true)
		foreign := net.JoinHostPort(f.foreign, "80")
		client, err := l.Client.Dial(t.Context(), f.udp(), foreign)
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		other, err := l.Client.Dial(t.Context(), f.udp(), foreign)
		if err != nil {
			t.Fatal(err)
		}
		defer other.Close()

		sendTo(t, client, listener, "first")
		flow := spoof(t, l.Proxy, f.udp(), foreign, client.LocalAddr().String())
		sendTo(t, client, flow, "second")
		sendTo(t, other, listener, "of another client")
		sendTo(t, flow, client.(*net.UDPConn), "answer")
		sendTo(t, client, flow, "third")
		if err := flow.Close(); err != nil {
			t.Fatal(err)
		}
		sendTo(t, client, listener, "after the flow")
	})
}

func sendTo(t *testing.T, from net.Conn, to *net.UDPConn, text string) {
	t.Helper()
	if _, err := from.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	if err := to.SetReadDeadline(time.Now().Add(limit)); err != nil {
		t.Fatal(err)
	}
	m, err := receive(to)
	if err != nil {
		t.Fatalf("%q does not arrive: %v", text, err)
	}
	if m.text != text || m.from.String() != from.LocalAddr().String() {
		t.Errorf("%q from %v arrives, want %q from %v", m.text, m.from, text, from.LocalAddr())
	}
}

// TestFragments sends datagrams that need several packets each way. Only the
// first has ports in it.
func TestFragments(t *testing.T) {
	const size = 20000
	eachFamily(t, func(t *testing.T, l *lab.Lab, f family) {
		vip, server := net.JoinHostPort(f.vip, "53"), net.JoinHostPort(f.server, "53")
		apply(t, rules.Plan{})
		serveUDP(t, l.Proxy, "vip", f.udp(), vip, true)
		c, err := l.Client.Dial(t.Context(), f.udp(), vip)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		wantReplyOn(t, c, "vip", size)

		far := listenUDP(t, l.Server, f.udp(), server, false)
		up := spoof(t, l.Proxy, f.udp(), net.JoinHostPort(f.client, "4321"), server)
		sendTo(t, up, far, string(make([]byte, size)))
		if _, err := far.WriteTo(make([]byte, size), up.LocalAddr()); err != nil {
			t.Fatal(err)
		}
		wantFragmented(t, up, size)

		// What passes by is put together too, and leaves in fragments again.
		passing := listenUDP(t, l.Server, f.udp(), net.JoinHostPort(f.server, "54"), true)
		c, err = l.Client.Dial(t.Context(), f.udp(), passing.LocalAddr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := c.Write(make([]byte, size)); err != nil {
			t.Fatal(err)
		}
		wantFragmented(t, passing, size)
	})
}

// wantFragmented reads a datagram that arrives whole, and knows of its
// fragments.
func wantFragmented(t *testing.T, c *net.UDPConn, size int) {
	t.Helper()
	if err := c.SetReadDeadline(time.Now().Add(limit)); err != nil {
		t.Fatal(err)
	}
	m, err := receive(c)
	if len(m.text) != size || err != nil {
		t.Errorf("%d bytes and %v arrive at %v, want %d bytes", len(m.text), err, c.LocalAddr(), size)
	}
	if m.fragment == 0 || m.fragment > 1500 {
		t.Errorf("%v heard of fragments of %d bytes, want some up to 1500", c.LocalAddr(), m.fragment)
	}
}

func TestLocalOutputUDP(t *testing.T) {
	eachFamily(t, func(t *testing.T, l *lab.Lab, f family) {
		address := net.JoinHostPort(f.foreign, "80")
		apply(t, dns(rules.Intercept{LocalOutput: true, IifName: lab.ClientLink}))
		serveUDP(t, l.Proxy, "proxy", f.udp(), net.JoinHostPort(f.any, "15001"), true)
		serveUDP(t, l.Server, "server", f.udp(), address, false)
		wantReply(t, l.Client, f.udp(), address, "proxy")
		wantReply(t, l.Proxy, f.udp(), address, "proxy")

		c, err := l.Proxy.DialConfig(t.Context(), exempt, f.udp(), address)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		wantReplyOn(t, c, "server", 100)
	})
}

// TestToEveryone has the proxy's host serve what is sent to all, though
// everything is intercepted and nobody listens.
func TestToEveryone(t *testing.T) {
	everyone := map[string]string{
		"udp4": "255.255.255.255:67",
		"udp6": net.JoinHostPort("ff02::1%"+lab.EndLink, "67"),
	}
	eachFamily(t, func(t *testing.T, l *lab.Lab, f family) {
		apply(t, dns(rules.Intercept{DestPorts: []rules.Ports{}, OnFailure: rules.Block}))
		here := listenUDP(t, l.Proxy, f.udp(), net.JoinHostPort(f.any, "67"), false)
		var c net.PacketConn
		// A zone is looked up in the namespace of the thread.
		err := l.Client.Do(func() error {
			to, err := net.ResolveUDPAddr(f.udp(), everyone[f.udp()])
			if err != nil {
				return err
			}
			if c, err = net.ListenPacket(f.udp(), ":0"); err != nil {
				return err
			}
			_, err = c.WriteTo([]byte("anybody there?"), to)
			return err
		})
		if c != nil {
			defer func() { _ = c.Close() }()
		}
		if err != nil {
			t.Fatal(err)
		}
		if err := here.SetReadDeadline(time.Now().Add(limit)); err != nil {
			t.Fatal(err)
		}
		if m, err := receive(here); m.text != "anybody there?" || err != nil {
			t.Errorf("got %q, %v, want what was sent to everyone", m.text, err)
		}
	})
}
