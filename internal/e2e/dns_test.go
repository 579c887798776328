package e2e

import (
	"fmt"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/tproxyd/tproxyd/internal/lab"
	"github.com/tproxyd/tproxyd/internal/netnstest"
)

// serverAnswer is what a DNS server on the server answers.
const serverAnswer = "203.0.113.80"

// dig asks a DNS server from an address and port of the client, once.
func (s *site) dig(from netip.AddrPort, server string, args ...string) string {
	s.t.Helper()
	kdig := netnstest.Need(s.t, "kdig", "knot-dnsutils")
	return s.run(kdig, append([]string{
		"+short", "+retry=0", "+timeout=10", "-b", fmt.Sprintf("%s@%d", from.Addr(), from.Port()), "@" + server,
	}, args...)...)
}

// dnsLoad is what dnsperf asks: so many names, so many times over.
const (
	dnsNames  = 50
	dnsRounds = 20
)

var dnsResult = regexp.MustCompile(`Queries (sent|completed|lost): +(\d+)`)

// dnsperf asks many questions at a time from each of a few ports.
func (s *site) dnsperf(server string) {
	s.t.Helper()
	dnsperf := netnstest.Need(s.t, "dnsperf", "dnsperf")
	var names strings.Builder
	for i := range dnsNames {
		fmt.Fprintf(&names, "name%d.example. A\n", i)
	}
	out := s.run(dnsperf, "-s", server, "-d", s.write("names", names.String()), "-n", fmt.Sprint(dnsRounds),
		"-c", "4", "-T", "1", "-q", "40", "-t", "10")
	got := map[string]string{}
	for _, m := range dnsResult.FindAllStringSubmatch(out, -1) {
		got[m[1]] = m[2]
	}
	all := fmt.Sprint(dnsNames * dnsRounds)
	if got["sent"] != all || got["completed"] != all || got["lost"] != "0" || !strings.Contains(out, "NOERROR "+all+" ") {
		s.t.Errorf("dnsperf to %s does not have %s good answers:\n%s", server, all, out)
	}
}

// withEtc runs its arguments with a directory in place of /etc.
const withEtc = `mount --bind "$1" /etc && shift && exec "$@"`

// resolve looks up a name by the C library, which asks for both families at a
// time from one port.
func (s *site) resolve(server, name string) []string {
	s.t.Helper()
	unshare := netnstest.Need(s.t, "unshare", "util-linux")
	getent := netnstest.Need(s.t, "getent", "libc-bin")
	if err := os.MkdirAll(s.path("etc"), 0o700); err != nil {
		s.t.Fatal(err)
	}
	s.write("etc/nsswitch.conf", "hosts: dns\n")
	s.write("etc/resolv.conf", fmt.Sprintf("nameserver %s\noptions attempts:1 timeout:10\n", server))
	out := s.run(unshare, "--mount", "--", "sh", "-c", withEtc, "sh", s.path("etc"), getent, "ahosts", name)
	var ips []string
	for line := range strings.Lines(out) {
		ips = append(ips, strings.Fields(line)[0])
	}
	slices.Sort(ips)
	return slices.Compact(ips)
}

func TestDNS(t *testing.T) {
	s := newUDPSite(t, dnsPort, "responses = 1")
	server := s.startKnot(s.Server, serverAnswer, serverIPs...)
	want := map[netip.AddrPort]int{} // those whose port we know
	for i, w := range ways {
		from := addrPort(w.client, 40001+i)
		if got := s.dig(from, w.ip, "host.example.", "A"); got != serverAnswer+"\n" {
			t.Errorf("%s: the address of host.example. is %q, want %s", w.name, got, serverAnswer)
		}
		// A reply in fragments, as long as the client has asked for.
		if got := s.dig(from, w.ip, "+bufsize=4096", "+ignore", "big.example.", "TXT"); got != strings.TrimSpace(bigText)+"\n" {
			t.Errorf("%s: the text of big.example. is %q, want %s", w.name, got, bigText)
		}
		want[from] = 2
		if got := s.resolve(w.ip, "host.example."); !slices.Equal(got, []string{hostIP6, serverAnswer}) {
			t.Errorf("%s: host.example. has the addresses %v", w.name, got)
		}
	}
	for _, w := range ways { // last: knot leaves out of its log what comes too fast
		s.dnsperf(w.ip)
	}
	s.awaitNoFlow()
	s.wantUDP("answered")
	for _, service := range udpServices {
		const queries = 2 * (4 + dnsNames*dnsRounds) // by both families
		for direction, n := range s.udpSamples("tproxyd_datagrams_total", service, "direction") {
			if n != queries {
				t.Errorf("%s: %v datagrams passed on in direction %s, want %d", service, n, direction, queries)
			}
		}
	}
	got := server.clients()
	for client := range got {
		if ip := client.Addr().String(); ip != lab.ClientIP4 && ip != lab.ClientIP6 {
			t.Errorf("the server has answered %v, which is not the client", client)
		}
	}
	wantClients(t, got, want)
}

// wantClients fails the test if a server has not answered some of its clients
// as often as wanted.
func wantClients(t *testing.T, got, want map[netip.AddrPort]int) {
	t.Helper()
	for client, n := range want {
		if got[client] != n {
			t.Errorf("the server has answered %v %d times, want %d", client, got[client], n)
		}
	}
}
