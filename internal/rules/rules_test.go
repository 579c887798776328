package rules_test

import (
	"context"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/tproxyd/tproxyd/internal/lab"
	"github.com/tproxyd/tproxyd/internal/netnstest"
	"github.com/tproxyd/tproxyd/internal/rules"
)

// output runs a tool in the proxy.
func output(t *testing.T, l *lab.Lab, tool, debianPackage string, args ...string) string {
	t.Helper()
	path := netnstest.Need(t, tool, debianPackage)
	out, err := l.Proxy.Command(context.WithoutCancel(t.Context()), path, args...).Output()
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// everything is all that Apply could touch, of the whole host.
func everything(t *testing.T, l *lab.Lab) string {
	t.Helper()
	return output(t, l, "nft", "nftables", "list", "ruleset") +
		output(t, l, "ip", "iproute2", "-4", "rule") + output(t, l, "ip", "iproute2", "-6", "rule") +
		output(t, l, "ip", "iproute2", "-4", "route", "show", "table", "all") +
		output(t, l, "ip", "iproute2", "-6", "route", "show", "table", "all")
}

func foreign(t *testing.T, l *lab.Lab) {
	t.Helper()
	output(t, l, "nft", "nftables", "add table inet foreign; "+
		"add chain inet foreign prerouting { type filter hook prerouting priority mangle; }; "+
		"add rule inet foreign prerouting tcp dport 80 counter packets 0 bytes 0 meta mark set 5")
	output(t, l, "ip", "iproute2", "rule", "add", "fwmark", "5", "lookup", "55")
	output(t, l, "ip", "iproute2", "route", "add", "203.0.113.128/25", "via", lab.ServerIP4, "table", "55")
}

func fullPlan() rules.Plan {
	return rules.Plan{
		Table: "test", Mark: 0x11, RouteTable: 111, Priority: 1111, ExemptMark: 0x22,
		Intercepts: []rules.Intercept{{
			Name: "web",
			DestPrefixes: []netip.Prefix{
				netip.MustParsePrefix("198.18.3.77/20"), netip.MustParsePrefix(lab.ForeignNet6),
			},
			DestPorts: []rules.Ports{rules.Port(80), {First: 8000, Last: 8010}},
			IifName:   lab.ClientLink, ToPort: 15001, OnFailure: rules.Block, LocalOutput: true,
		}, {
			Name: "rest", Protocol: rules.TCP, To: netip.MustParseAddr("127.0.0.1"), ToPort: 15002,
		}, {
			Name: "names", Protocol: rules.UDP, DestPorts: []rules.Ports{rules.Port(53)}, ToPort: 15003,
		}},
	}
}

const fullTable = `table inet test {
	chain defrag {
		meta l4proto udp tproxy to :1
	}

	chain divert {
		socket wildcard 1 return
		meta mark set 0x00000011 accept
	}

	chain prerouting {
		type filter hook prerouting priority mangle; policy accept;
		meta mark 0x00000022 accept
		socket transparent 1 jump divert
		fib daddr type { local, broadcast, multicast } accept
		iifname "lab-client" ip daddr 198.18.0.0/20 jump web
		iifname "lo" ip daddr 198.18.0.0/20 jump web
		iifname "lab-client" ip6 daddr 2001:db8:3::/64 jump web
		iifname "lo" ip6 daddr 2001:db8:3::/64 jump web
		meta nfproto ipv4 jump rest
		jump names
	}

	chain web {
		tcp dport 80 tproxy to :15001 meta mark set 0x00000011 accept
		tcp dport 80 counter packets 0 bytes 0 drop
		tcp dport 8000-8010 tproxy to :15001 meta mark set 0x00000011 accept
		tcp dport 8000-8010 counter packets 0 bytes 0 drop
		udp dport 80 tproxy to :15001 meta mark set 0x00000011 accept
		udp dport 80 counter packets 0 bytes 0 drop
		udp dport 8000-8010 tproxy to :15001 meta mark set 0x00000011 accept
		udp dport 8000-8010 counter packets 0 bytes 0 drop
	}

	chain output {
		type route hook output priority mangle; policy accept;
		meta mark 0x00000022 accept
		fib daddr type { local, broadcast, multicast } accept
		ip daddr 198.18.0.0/20 tcp dport 80 meta mark set 0x00000011 accept
		ip daddr 198.18.0.0/20 tcp dport 8000-8010 meta mark set 0x00000011 accept
		ip daddr 198.18.0.0/20 udp dport 80 meta mark set 0x00000011 accept
		ip daddr 198.18.0.0/20 udp dport 8000-8010 meta mark set 0x00000011 accept
		ip6 daddr 2001:db8:3::/64 tcp dport 80 meta mark set 0x00000011 accept
		ip6 daddr 2001:db8:3::/64 tcp dport 8000-8010 meta mark set 0x00000011 accept
		ip6 daddr 2001:db8:3::/64 udp dport 80 meta mark set 0x00000011 accept
		ip6 daddr 2001:db8:3::/64 udp dport 8000-8010 meta mark set 0x00000011 accept
	}

	chain rest {
		meta l4proto tcp tproxy ip to 127.0.0.1:15002 meta mark set 0x00000011 accept
	}

	chain names {
		udp dport 53 tproxy to :15003 meta mark set 0x00000011 accept
	}
}
`

func TestApplyAndRemove(t *testing.T) {
	l := netnstest.New(t)
	foreign(t, l)
	before := everything(t, l)
	for range 2 { // also over itself
		if err := rules.Apply(fullPlan()); err != nil {
			t.Fatal(err)
		}
	}
	got := output(t, l, "nft", "nftables", "list", "table", "inet", "test")
	if diff := cmp.Diff(fullTable, got); diff != "" {
		t.Errorf("table (-want +got):\n%s", diff)
	}
	for _, f := range []string{"-4", "-6"} {
		rule := output(t, l, "ip", "iproute2", f, "rule", "show", "fwmark", "0x11")
		if want := "1111:\tfrom all fwmark 0x11 lookup 111"; strings.TrimSpace(rule) != want {
			t.Errorf("policy rule %q, want %q", rule, want)
		}
		route := output(t, l, "ip", "iproute2", f, "route", "show", "table", "111")
		if !strings.HasPrefix(route, "local default dev lo") || strings.Count(route, "\n") != 1 {
			t.Errorf("route %q, want local default dev lo", route)
		}
	}
	for range 2 { // also when nothing is there
		if err := rules.Remove(fullPlan()); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(before, everything(t, l)); diff != "" {
		t.Errorf("left after Remove (-before +after):\n%s", diff)
	}
}

func TestApplyReplaces(t *testing.T) {
	l := netnstest.New(t)
	p := fullPlan()
	apply(t, p)
	p.Intercepts = p.Intercepts[:1]
	p.Intercepts[0].Name = "renamed"
	if err := rules.Apply(p); err != nil {
		t.Fatal(err)
	}
	got := output(t, l, "nft", "nftables", "list", "ruleset")
	if !strings.Contains(got, "chain renamed") || strings.Contains(got, "chain web") || strings.Contains(got, "chain rest") {
		t.Errorf("old rules are still there:\n%s", got)
	}
}

// TestApplyRemovesPartly completes and removes what somebody has broken.
func TestApplyRemovesPartly(t *testing.T) {
	l := netnstest.New(t)
	before := everything(t, l)
	apply(t, fullPlan())
	full := everything(t, l)
	output(t, l, "ip", "iproute2", "-4", "rule", "del", "fwmark", "0x11")
	output(t, l, "ip", "iproute2", "-6", "route", "flush", "table", "111")
	output(t, l, "nft", "nftables", "flush", "chain", "inet", "test", "divert")
	if err := rules.Apply(fullPlan()); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(full, everything(t, l)); diff != "" {
		t.Errorf("not repaired (-want +got):\n%s", diff)
	}
	output(t, l, "nft", "nftables", "flush", "ruleset")
	output(t, l, "ip", "iproute2", "-6", "rule", "del", "fwmark", "0x11")
	if err := rules.Remove(fullPlan()); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(before, everything(t, l)); diff != "" {
		t.Errorf("left after Remove (-before +after):\n%s", diff)
	}
}

func TestApplyFails(t *testing.T) {
	tests := map[string]struct {
		change func(*rules.Plan)
		want   string
	}{
		"by nftables":   {func(p *rules.Plan) { p.Table = strings.Repeat("x", 300) }, "add nftables table inet xxx"},
		"mark taken":    {func(p *rules.Plan) { p.Mark = 5 }, "mark 0x5 is in use, by the IPv4 policy rule"},
		"table taken":   {func(p *rules.Plan) { p.RouteTable = 55 }, "route table 55 is in use, by the IPv4 route"},
		"same marks":    {func(p *rules.Plan) { p.Mark = p.ExemptMark }, "use two different ones"},
		"main table":    {func(p *rules.Plan) { p.RouteTable = 254 }, "route table 254 is the system's"},
		"no name":       {func(p *rules.Plan) { p.Intercepts[0].Name = "" }, `intercept "": a name has`},
		"bad name":      {func(p *rules.Plan) { p.Intercepts[0].Name = "a b" }, "a name has"},
		"chain taken":   {func(p *rules.Plan) { p.Intercepts[0].Name = "divert" }, `intercept "divert": the name is taken`},
		"defrag taken":  {func(p *rules.Plan) { p.Intercepts[0].Name = "defrag" }, `intercept "defrag": the name is taken`},
		"no protocol":   {func(p *rules.Plan) { p.Intercepts[0].Protocol = 3 }, `intercept "web": protocol 3 is unknown`},
		"no port":       {func(p *rules.Plan) { p.Intercepts[1].ToPort = 0 }, `intercept "rest": no port to go to`},
		"long link":     {func(p *rules.Plan) { p.Intercepts[0].IifName = strings.Repeat("x", 16) }, "longer than 15 bytes"},
		"no exemption":  {func(p *rules.Plan) { p.ExemptMark = 0 }, "needs an exempt mark"},
		"reversed":      {func(p *rules.Plan) { p.Intercepts[0].DestPorts[1].Last = 1 }, "8000-1 is reversed"},
		"mixed family":  {func(p *rules.Plan) { p.Intercepts[0].To = netip.MustParseAddr("::1") }, "of the other family"},
		"zero prefix":   {func(p *rules.Plan) { p.Intercepts[0].DestPrefixes[0] = netip.Prefix{} }, "no IPv4 or IPv6 prefix"},
		"mapped prefix": {func(p *rules.Plan) { p.Intercepts[0].DestPrefixes[0] = netip.MustParsePrefix("::ffff:1.2.3.4/128") }, "no IPv4 or IPv6 prefix"},
	}
	l := netnstest.New(t)
	foreign(t, l)
	before := everything(t, l)
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			p := fullPlan()
			tt.change(&p)
			err := rules.Apply(p)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want %q", err, tt.want)
			}
			if diff := cmp.Diff(before, everything(t, l)); diff != "" {
				t.Errorf("left after a failed Apply (-before +after):\n%s", diff)
			}
		})
	}
}

func TestApplyWithoutIPv6(t *testing.T) {
	l := netnstest.New(t)
	if err := l.Proxy.Sysctl("ipv6.conf.lo.disable_ipv6", "1"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Proxy.Sysctl("ipv6.conf.lo.disable_ipv6", "0"); err != nil {
			t.Error(err)
		}
	})
	apply(t, fullPlan())
	if got := output(t, l, "ip", "iproute2", "-6", "rule", "show", "fwmark", "0x11"); got != "" {
		t.Errorf("IPv6 policy rule %q", got)
	}
	serve(t, l.Proxy, "proxy", "tcp4", "0.0.0.0:15001", true)
	wantAnswer(t, l.Client, net.JoinHostPort(lab.ForeignIP4, "80"), "proxy")
}

// TestUnprivileged goes to a namespace that is not ours to change.
func TestUnprivileged(t *testing.T) {
	l := netnstest.New(t)
	before := everything(t, l)
	err := withoutNetAdmin(func() error { return rules.Apply(fullPlan()) })
	if err == nil || !strings.Contains(err.Error(), "CAP_NET_ADMIN is needed") {
		t.Errorf("error %v, want one that names CAP_NET_ADMIN", err)
	}
	if diff := cmp.Diff(before, everything(t, l)); diff != "" {
		t.Errorf("left after a failed Apply (-before +after):\n%s", diff)
	}
}

func withoutNetAdmin(fn func() error) error {
	done := make(chan error)
	go func() {
		// The capability is the thread's, which ends with this goroutine.
		runtime.LockOSThread()
		hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var caps [2]unix.CapUserData
		err := unix.Capget(&hdr, &caps[0])
		if err == nil {
			caps[0].Effective &^= 1 << unix.CAP_NET_ADMIN
			err = unix.Capset(&hdr, &caps[0])
		}
		if err == nil {
			err = fn()
		}
		done <- err
	}()
	return <-done
}
