package rules_test

import (
	"context"
	"errors"
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tproxyd/tproxyd/internal/lab"
	"github.com/tproxyd/tproxyd/internal/netnstest"
	"github.com/tproxyd/tproxyd/internal/rules"
)

// Networks behind the server, which routes to them or not.
var (
	narrowNet  = map[string]string{"tcp4": "198.18.5.0/24", "tcp6": "2001:db8:5::/64"}
	narrowHost = map[string]string{"tcp4": "198.18.5.9", "tcp6": "2001:db8:5::9"}
	deadNet    = map[string]string{"tcp4": "198.18.6.0/24", "tcp6": "2001:db8:6::/64"}
	deadHost   = map[string]string{"tcp4": "198.18.6.9", "tcp6": "2001:db8:6::9"}
)

// behindServer makes the server a router: to a network with a small MTU, and
// to none. It tells of every packet that it cannot pass on.
func behindServer(t *testing.T, l *lab.Lab, f family) {
	t.Helper()
	ip := netnstest.Need(t, "ip", "iproute2")
	for _, c := range []struct {
		host *lab.Host
		args []string
	}{
		{l.Server, []string{"link", "add", "narrow", "mtu", "1280", "type", "veth", "peer", "name", "narrow-end"}},
		{l.Server, []string{"link", "set", "narrow-end", "up"}},
		{l.Server, []string{"link", "set", "narrow", "up"}},
		{l.Server, []string{"route", "add", narrowNet[f.network], "dev", "narrow"}},
		{l.Server, []string{"route", "add", "unreachable", deadNet[f.network]}},
		{l.Proxy, []string{"route", "add", narrowNet[f.network], "via", f.server}},
		{l.Proxy, []string{"route", "add", deadNet[f.network], "via", f.server}},
	} {
		if out, err := c.host.Command(t.Context(), ip, c.args...).CombinedOutput(); err != nil {
			t.Fatalf("ip %v in the %s: %v\n%s", c.args, c.host.Name, err, out)
		}
	}
	unlimitedICMP(t, l.Server)
}

// unlimitedICMP makes a host answer every packet, however many there are.
func unlimitedICMP(t *testing.T, h *lab.Host) {
	t.Helper()
	for _, key := range []string{"ipv4/icmp_ratelimit", "ipv6/icmp/ratelimit"} {
		if err := h.Sysctl(key, "0"); err != nil {
			t.Fatal(err)
		}
	}
}

// wantError sends until the socket hears of an error.
func wantError(t *testing.T, c *net.UDPConn, size int, want error) {
	t.Helper()
	var err error
	netnstest.Eventually(t, limit, func() bool {
		_, err = c.Write(make([]byte, size))
		return err != nil
	}, "an error of the packets to "+c.RemoteAddr().String())
	if !errors.Is(err, want) {
		t.Errorf("packets from %v to %v: %v, want %v", c.LocalAddr(), c.RemoteAddr(), err, want)
	}
}

// TestPortUnreachable sends with the client's address to a port that nobody
// has. The error is addressed to the client.
func TestPortUnreachable(t *testing.T) {
	eachFamily(t, func(t *testing.T, l *lab.Lab, f family) {
		unlimitedICMP(t, l.Server)
		up := spoof(t, l.Proxy, f.udp(), net.JoinHostPort(f.client, "4321"), net.JoinHostPort(f.server, "9"))
		client := spoofed(t, l, f)
		// Without rules it goes by, to a socket that never sent such a packet.
		if _, err := up.Write([]byte("anybody?")); err != nil {
			t.Fatal(err)
		}
		if err := client.SetReadDeadline(time.Now().Add(limit)); err != nil {
			t.Fatal(err)
		}
		if _, err := client.Read(make([]byte, 1)); !errors.Is(err, unix.ECONNREFUSED) {
			t.Errorf("the client without rules: %v, want ECONNREFUSED", err)
		}
		apply(t, rules.Plan{})
		wantError(t, up, 100, unix.ECONNREFUSED)

		// The same for what is sent from an address that a client spoke to.
		unlimitedICMP(t, l.Client)
		back := spoof(t, l.Proxy, f.udp(), net.JoinHostPort(f.foreign, "53"), net.JoinHostPort(f.client, "9"))
		wantError(t, back, 100, unix.ECONNREFUSED)
	})
}

// spoofed is the client's own socket with the address and port that the proxy
// uses as well.
func spoofed(t *testing.T, l *lab.Lab, f family) *net.UDPConn {
	t.Helper()
	c, err := l.Client.DialFrom(t.Context(), f.udp(), net.JoinHostPort(f.client, "4321"), net.JoinHostPort(f.server, "9"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c.(*net.UDPConn)
}

// TestPacketTooBig sends with the client's address what a router behind the
// proxy cannot pass on whole.
func TestPacketTooBig(t *testing.T) {
	eachFamily(t, func(t *testing.T, l *lab.Lab, f family) {
		behindServer(t, l, f)
		apply(t, rules.Plan{})
		up := spoof(t, l.Proxy, f.udp(), net.JoinHostPort(f.client, "4321"), net.JoinHostPort(narrowHost[f.network], "53"))
		dontFragment(t, f, up)
		wantError(t, up, 1400, unix.EMSGSIZE)
		if got := pathMTU(t, f, up); got != 1280 {
			t.Errorf("the socket's path MTU is %d, want 1280", got)
		}
	})
}

func dontFragment(t *testing.T, f family, c *net.UDPConn) {
	t.Helper()
	control(t, c, func(fd int) error {
		if f.network == "tcp6" {
			return unix.SetsockoptInt(fd, unix.SOL_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_DO)
		}
		return unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DO)
	})
}

func pathMTU(t *testing.T, f family, c *net.UDPConn) (mtu int) {
	t.Helper()
	control(t, c, func(fd int) (err error) {
		if f.network == "tcp6" {
			mtu, err = unix.GetsockoptInt(fd, unix.SOL_IPV6, unix.IPV6_MTU)
		} else {
			mtu, err = unix.GetsockoptInt(fd, unix.SOL_IP, unix.IP_MTU)
		}
		return err
	})
	return mtu
}

func control(t *testing.T, c *net.UDPConn, do func(fd int) error) {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var inner error
	if err := errors.Join(raw.Control(func(fd uintptr) { inner = do(int(fd)) }), inner); err != nil {
		t.Fatal(err)
	}
}

// TestHostUnreachable connects with the client's address to a network that
// does not exist.
func TestHostUnreachable(t *testing.T) {
	eachFamily(t, func(t *testing.T, l *lab.Lab, f family) {
		behindServer(t, l, f)
		apply(t, rules.Plan{})
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		defer cancel()
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(f.client)}, Control: setTransparent}
		c, err := l.Proxy.DialConfig(ctx, d, f.network, net.JoinHostPort(deadHost[f.network], "80"))
		if err == nil {
			c.Close()
		}
		if !errors.Is(err, unix.EHOSTUNREACH) && !errors.Is(err, unix.ENETUNREACH) {
			t.Errorf("connect: %v, want EHOSTUNREACH or ENETUNREACH", err)
		}
	})
}
