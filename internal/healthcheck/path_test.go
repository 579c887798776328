package healthcheck

import (
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
	"golang.org/x/sys/unix"

	"github.com/tproxyd/tproxyd/internal/lab"
	"github.com/tproxyd/tproxyd/internal/netnstest"
	"github.com/tproxyd/tproxyd/internal/rules"
	"github.com/tproxyd/tproxyd/internal/sys"
)

// spoofTimeout is of checks whose answers do not come back.
const spoofTimeout = 300 * time.Millisecond

// misroute gives the server another way to the spoofed address than by the
// proxy, and returns what takes it away again.
func misroute(t *testing.T, l *lab.Lab, spoof netip.Addr) (restore func()) {
	t.Helper()
	nl, err := l.Server.Netlink()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nl.Close)
	route := &netlink.Route{
		Dst:  &net.IPNet{IP: spoof.AsSlice(), Mask: net.CIDRMask(spoof.BitLen(), spoof.BitLen())},
		Type: unix.RTN_BLACKHOLE,
	}
	if err := nl.RouteAdd(route); err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := nl.RouteDel(route); err != nil {
			t.Fatal(err)
		}
	}
}

func TestReturnPath(t *testing.T) {
	for name, tt := range map[string]struct{ server, vip string }{
		"v4": {lab.ServerIP4, lab.VIP4},
		"v6": {lab.ServerIP6, lab.VIP6},
	} {
		for _, kind := range []Type{TCP, HTTP, UDP} {
			t.Run(name+map[Type]string{TCP: " tcp", HTTP: " http", UDP: " udp"}[kind], func(t *testing.T) {
				testReturnPath(t, kind, netip.MustParseAddr(tt.server), netip.MustParseAddr(tt.vip))
			})
		}
	}
}

func testReturnPath(t *testing.T, kind Type, server, vip netip.Addr) {
	l := netnstest.New(t)
	if err := rules.Apply(rules.Plan{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := rules.Remove(rules.Plan{}); err != nil {
			t.Error(err)
		}
	})
	sources := make(chan netip.Addr, 1000)
	addr := startServer(t, l, kind, netip.AddrPortFrom(server, 80), sources)
	core, logs := observer.New(zap.InfoLevel)
	var j journal
	c := New(Options{Log: zap.New(core), Report: j.report})
	x := target("a", addr)
	x.Spoof, x.Mark = vip, 99
	x.Check.Type, x.Check.Interval, x.Check.Timeout = kind, 20*time.Millisecond, spoofTimeout
	c.Set([]Target{x})
	begin(t, c)
	counts := c.runners[x.key()].counts
	path := func() pathVerdict {
		counts.mu.Lock()
		defer counts.mu.Unlock()
		return counts.path
	}
	netnstest.Eventually(t, limit, func() bool { return j.last("a").OK && path() == pathOK }, "a good check from the virtual address")
	netnstest.Eventually(t, limit, func() bool { return <-sources == vip }, "the backend sees the virtual address")
	logs.TakeAll() // a first packet may have been lost

	restore := misroute(t, l, vip)
	netnstest.Eventually(t, limit, func() bool { return j.last("a").Outcome == NoReturnPath && path() == pathBroken }, "the verdict")
	if r := j.last("a"); r.OK || len(r.Detail) < len(returnPathDetail) || r.Detail[:len(returnPathDetail)] != returnPathDetail {
		t.Errorf("result %+v", r)
	}
	restore()
	netnstest.Eventually(t, limit, func() bool { return j.last("a").OK && path() == pathOK }, "the way back again")
	if logs.FilterMessageSnippet("return path broken").Len() != 1 || logs.FilterMessageSnippet("works again").Len() != 1 || logs.Len() != 2 {
		t.Errorf("logged %v", logs.All())
	}
}

// startServer answers in the server's namespace and tells from where it was
// asked.
func startServer(t *testing.T, l *lab.Lab, kind Type, addr netip.AddrPort, sources chan<- netip.Addr) netip.AddrPort {
	t.Helper()
	if kind == UDP {
		pc, err := l.Server.ListenPacket("udp", addr.String())
		if err != nil {
			t.Fatal(err)
		}
		servePackets(t, &telling{pc, sources}, func(b []byte) [][]byte { return [][]byte{{1}} })
		return addr
	}
	ln, err := l.Server.Listen("tcp", addr.String())
	if err != nil {
		t.Fatal(err)
	}
	serve(t, ln, func(c net.Conn) {
		select {
		case sources <- c.RemoteAddr().(*net.TCPAddr).AddrPort().Addr():
		default:
		}
		if kind == HTTP {
			afterRequest("HTTP/1.1 204 No Content\r\n\r\n", nil)(c)
		}
		_, _ = io.Copy(io.Discard, c)
	})
	return addr
}

// telling tells where datagrams come from.
type telling struct {
	net.PacketConn
	sources chan<- netip.Addr
}

func (p *telling) ReadFrom(b []byte) (int, net.Addr, error) {
	n, from, err := p.PacketConn.ReadFrom(b)
	if err == nil {
		select {
		case p.sources <- from.(*net.UDPAddr).AddrPort().Addr():
		default:
		}
	}
	return n, from, err
}

// TestSpoofedButDown has a backend that is down whatever the routes are.
func TestSpoofedButDown(t *testing.T) {
	l := netnstest.New(t)
	if err := rules.Apply(rules.Plan{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := rules.Remove(rules.Plan{}); err != nil {
			t.Error(err)
		}
	})
	x := Target{
		Addr: netip.MustParseAddrPort(lab.ServerIP4 + ":80"), Spoof: netip.MustParseAddr(lab.VIP4),
		Check: &Check{Timeout: patient},
	}
	f := x.check(t.Context(), time.Now)
	wantOutcome(t, f, Refused)
	if !f.answered {
		t.Error("a refusal came back, so the way back is right")
	}
	misroute(t, l, x.Spoof)
	x.Check.Timeout = spoofTimeout
	f = x.check(t.Context(), time.Now)
	wantOutcome(t, f, Timeout)
	if f.answered {
		t.Error("nothing came back")
	}
}

// TestMark looks at the options of a socket for IPv6, which takes one of IPv4 too.
func TestMark(t *testing.T) {
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer sys.Close(fd)
	x := Target{Addr: netip.MustParseAddrPort("[2001:db8::1]:80"), Spoof: netip.MustParseAddr("2001:db8::2"), Mark: 7}
	if err := x.prepare(fd, false); err != nil {
		t.Fatal(err)
	}
	for _, o := range []struct{ level, option, want int }{
		{unix.SOL_SOCKET, unix.SO_MARK, 7},
		{unix.SOL_IPV6, unix.IPV6_TRANSPARENT, 1},
		{unix.SOL_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1},
	} {
		if got, err := unix.GetsockoptInt(fd, o.level, o.option); got != o.want || err != nil {
			t.Errorf("option %d is %d, %v, want %d", o.option, got, err, o.want)
		}
	}
	if err := x.prepare(-1, false); err == nil {
		t.Error("no error of a bad descriptor")
	}
}
