package deploy_test

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tproxyd/tproxyd/internal/lab"
	"github.com/tproxyd/tproxyd/internal/netnstest"
)

// The ports of the lab's services.
const (
	vipPort       = 443
	backendPort   = 8443
	interceptPort = 80
	listenPort    = 15001
)

// A family is the addresses of one IP version.
type family struct {
	name, client, vip, backend, foreign, loopback, any string
}

var families = []family{
	{"IPv4", lab.ClientIP4, lab.VIP4, lab.ServerIP4, lab.ForeignIP4, "127.0.0.1", "0.0.0.0"},
	{"IPv6", lab.ClientIP6, lab.VIP6, lab.ServerIP6, lab.ForeignIP6, "::1", "::"},
}

func at(host string, port int) string { return net.JoinHostPort(host, fmt.Sprint(port)) }

// each joins an address of both families with a port.
func each(port int, pick func(family) string) []string {
	var out []string
	for _, f := range families {
		out = append(out, at(pick(f), port))
	}
	return out
}

func vips(f family) string      { return f.vip }
func backends(f family) string  { return f.backend }
func foreigns(f family) string  { return f.foreign }
func loopbacks(f family) string { return f.loopback }
func anys(f family) string      { return f.any }

// backendOf is where the test proxy takes connections to a virtual address.
func backendOf(destination *net.TCPAddr) string {
	for _, f := range families {
		if net.ParseIP(f.vip).Equal(destination.IP) {
			return at(f.backend, backendPort)
		}
	}
	return destination.String()
}

// A firewall is one way to say what mode needs, loaded and removed by tools
// that an operator has.
type firewall struct {
	name     string
	up, down func(t *testing.T, l *lab.Lab)
}

// nftFirewall loads a file of nft/ after editing its definitions.
func nftFirewall(file, table string, edits ...string) firewall {
	return firewall{
		name: strings.Join(append([]string{file}, edits...), " "),
		up: func(t *testing.T, l *lab.Lab) {
			t.Helper()
			run(t, l, nil, "nft", "-f", edited(t, filepath.Join("nft", file), edits...))
		},
		down: func(t *testing.T, l *lab.Lab) {
			t.Helper()
			run(t, l, nil, "nft", "delete", "table", "inet", table)
		},
	}
}

// edited copies a file of nft/ with other definitions, each "name = value".
func edited(t *testing.T, file string, edits ...string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, edit := range edits {
		name, _, _ := strings.Cut(edit, " = ")
		line := regexp.MustCompile(`(?m)^define ` + name + ` = .*$`)
		if n := len(line.FindAll(text, -1)); n != 1 {
			t.Fatalf("%s: %d lines define %s, want 1", file, n, name)
		}
		text = line.ReplaceAll(text, []byte("define "+edit))
	}
	path := filepath.Join(t.TempDir(), filepath.Base(file))
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// iptablesFirewall runs a script of iptables/ with settings.
func iptablesFirewall(script string, settings ...string) firewall {
	path := filepath.Join("iptables", script)
	return firewall{
		name: strings.Join(append([]string{script}, settings...), " "),
		up: func(t *testing.T, l *lab.Lab) {
			t.Helper()
			run(t, l, settings, "sh", path, "up")
		},
		down: func(t *testing.T, l *lab.Lab) {
			t.Helper()
			run(t, l, settings, "sh", path, "down")
		},
	}
}

// run runs a command in the proxy's host and returns what it printed.
func run(t *testing.T, l *lab.Lab, settings []string, name string, args ...string) string {
	t.Helper()
	out, err := try(t, l.Proxy, settings, name, args...)
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return out
}

func try(t *testing.T, host *lab.Host, settings []string, name string, args ...string) (string, error) {
	t.Helper()
	cmd := host.Command(t.Context(), name, args...)
	cmd.Env = append(os.Environ(), settings...)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// newLab makes a lab, after a look for the tools of these tests.
func newLab(t *testing.T) *lab.Lab {
	t.Helper()
	netnstest.Need(t, "nft", "nftables")
	netnstest.Need(t, "iptables", "iptables")
	netnstest.Need(t, "ip6tables", "iptables")
	netnstest.Need(t, "ip", "iproute2")
	return netnstest.New(t)
}

var (
	packetCounts = regexp.MustCompile(`packets \d+ bytes \d+|\[\d+:\d+\]`)
	comments     = regexp.MustCompile(`(?m)^#.*\n`)
)

// settings returns all that the files of this directory may change in the
// kernel, in words that can be compared.
func settings(t *testing.T, l *lab.Lab) string {
	t.Helper()
	var all strings.Builder
	for _, command := range [][]string{
		{"ip", "-4", "rule", "list"},
		{"ip", "-6", "rule", "list"},
		{"ip", "-4", "route", "list", "table", "all", "scope", "host"},
		{"ip", "-6", "route", "list", "table", "all", "type", "local"},
		{"iptables-save", "-t", "mangle"},
		{"ip6tables-save", "-t", "mangle"},
		{"nft", "list", "ruleset"},
	} {
		fmt.Fprintf(&all, "+ %s\n%s", strings.Join(command, " "), run(t, l, nil, command[0], command[1:]...))
	}
	return packetCounts.ReplaceAllString(comments.ReplaceAllString(all.String(), ""), "")
}

// foreignRules loads rules that have nothing to do with tproxyd, in the
// places where its own go.
const foreignRules = `
table inet site {
	chain prerouting {
		type filter hook prerouting priority mangle; policy accept;
		tcp dport 22 counter accept
	}
}
`

func loadForeignRules(t *testing.T, l *lab.Lab) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "foreign.nft")
	if err := os.WriteFile(file, []byte(foreignRules), 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, l, nil, "nft", "-f", file)
	for _, tables := range []string{"iptables", "ip6tables"} {
		run(t, l, nil, tables, "-t", "mangle", "-A", "PREROUTING", "-p", "udp", "--dport", "53", "-j", "ACCEPT")
	}
	run(t, l, nil, "ip", "rule", "add", "priority", "900", "fwmark", "0x1", "lookup", "77")
}

// TestRules loads each firewall twice, looks at both fail modes before and
// after a proxy was there, sends connections through it, and takes the rules
// away, after which everything is as it was.
func TestRules(t *testing.T) {
	tests := []struct {
		firewall
		mode   string
		bypass bool
	}{
		{nftFirewall("tproxyd-vip.nft", "tproxyd_vip"), "vip", false},
		{nftFirewall("tproxyd-vip.nft", "tproxyd_vip", "when_down = bypass"), "vip", true},
		{iptablesFirewall("vip.sh"), "vip", false},
		{iptablesFirewall("vip.sh", "WHEN_DOWN=bypass"), "vip", true},
		{interceptRules["nft"], "intercept", false},
		{nftFirewall("tproxyd-intercept.nft", "tproxyd_intercept", "udp_ports = { 80 }", "when_down = bypass"), "intercept", true},
		{interceptRules["iptables"], "intercept", false},
		{iptablesFirewall("intercept.sh", "UDP_PORTS=80", "WHEN_DOWN=bypass"), "intercept-any", true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			l := newLab(t)
			ownVIPs(t, l)
			startBackend(t, l.Server, each(backendPort, backends)...)
			proxy, target := modeOf(tt.mode)
			direct := startBackend(t, l.Server, each(target.port, target.host)...)
			startUDPBackend(t, l.Server, each(backendPort, backends)...)
			directUDP := startUDPBackend(t, l.Server, each(target.port, target.host)...)
			loadForeignRules(t, l)
			before := settings(t, l)

			for range 2 {
				run(t, l, nil, "sh", "policy-routing.sh", "up")
				tt.up(t, l)
			}
			whenDown := func() {
				t.Helper()
				for _, f := range families {
					to := at(target.host(f), target.port)
					before, beforeUDP := direct.accepted.Load(), directUDP.received.Load()
					if tt.bypass {
						reaches(t, l.Client, at(f.client, 0), to, f.client)
						reachesByUDP(t, l.Client, to, 1)
						continue
					}
					silent(t, l.Client, at(f.client, 0), to)
					silentByUDP(t, l.Client, to)
					if direct.accepted.Load() != before || directUDP.received.Load() != beforeUDP {
						t.Errorf("a connection or datagram to %s went by without a proxy", to)
					}
				}
			}
			whenDown()
			throughProxy(t, l, proxy, target, direct)
			throughUDPProxy(t, l, proxy, target, directUDP)
			whenDown()

			for range 2 {
				run(t, l, nil, "sh", "policy-routing.sh", "down")
			}
			tt.down(t, l)
			if diff := cmp.Diff(before, settings(t, l)); diff != "" {
				t.Errorf("the rules left something behind (-before +after):\n%s", diff)
			}
		})
	}
}

// endpoint is what the client connects to, in both families.
type endpoint struct {
	host func(family) string
	port int
}

// modeOf returns the proxy that a mode needs, and what the client connects to.
func modeOf(mode string) (proxyConfig, endpoint) {
	switch mode {
	case "vip":
		return proxyConfig{listen: each(vipPort, vips), backend: backendOf}, endpoint{vips, vipPort}
	case "intercept":
		return proxyConfig{listen: each(listenPort, loopbacks)}, endpoint{foreigns, interceptPort}
	default: // on any address, and the intercepted port itself
		return proxyConfig{listen: each(interceptPort, anys)}, endpoint{foreigns, interceptPort}
	}
}

// throughProxy runs a proxy and sends connections of both families through it.
func throughProxy(t *testing.T, l *lab.Lab, cfg proxyConfig, to endpoint, direct *tcpServer) {
	t.Helper()
	proxy := startProxy(t, l, cfg)
	defer proxy.close()
	before := direct.accepted.Load()
	for _, f := range families {
		reaches(t, l.Client, at(f.client, 0), at(to.host(f), to.port), f.client)
	}
	if got := proxy.accepted.Load(); got != int64(len(families)) {
		t.Errorf("the proxy had %d connections, want %d", got, len(families))
	}
	if got := direct.accepted.Load() - before; cfg.backend != nil && got != 0 {
		t.Errorf("%d connections went by without the proxy", got)
	}
}

// ownVIPs gives the virtual addresses to the server, which is where they are
// when there is no proxy.
func ownVIPs(t *testing.T, l *lab.Lab) {
	t.Helper()
	for _, f := range families {
		if out, err := try(t, l.Server, nil, "ip", "address", "add", f.vip, "dev", "lo", "nodad"); err != nil {
			t.Fatalf("give %s to the server: %v\n%s", f.vip, err, out)
		}
		run(t, l, nil, "ip", "route", "add", f.vip, "via", f.backend)
	}
}
