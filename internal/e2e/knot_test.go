package e2e

import (
	"fmt"
	"net/netip"
	"os"
	"regexp"
	"strings"

	"github.com/tproxyd/tproxyd/internal/lab"
	"github.com/tproxyd/tproxyd/internal/netnstest"
)

const dnsPort = 53

// The answers of a knot: any name of the zone example has an IPv4 address of
// the server's own choice, host has an IPv6 address as well, and the text of
// big needs three packets.
const hostIP6 = "2001:db8:80::1"

var bigText = strings.Repeat(` "`+strings.Repeat("0123456789", 25)+`"`, 12)

// knot is a DNS server.
type knot struct {
	s    *site
	stop func()
	log  string
}

// startKnot runs a knot on the DNS port of some addresses of a host, whose
// answers are the given IPv4 address.
func (s *site) startKnot(h *lab.Host, answer string, listen ...string) *knot {
	s.t.Helper()
	knotd := netnstest.Need(s.t, "knotd", "knot")
	dir := s.path("knot-" + h.Name)
	if err := os.Mkdir(dir, 0o700); err != nil {
		s.t.Fatal(err)
	}
	zone := s.write("knot-"+h.Name+"/example.zone", fmt.Sprintf(`
@ 3600 SOA ns hostmaster 1 3600 600 86400 60
@ 3600 NS ns
* 3600 A %[1]s
host 3600 A %[1]s
host 3600 AAAA %[2]s
big 3600 TXT %[3]s
`, answer, hostIP6, bigText))
	config := s.write("knot-"+h.Name+"/knot.conf", fmt.Sprintf(`
server:
    rundir: "%[1]s"
    listen: [%[2]s]
    udp-workers: 1
    tcp-workers: 1
    background-workers: 1
    udp-max-payload: 4096
database:
    storage: "%[1]s"
log:
  - target: stderr
    any: warning
mod-dnstap:
  - id: log
    sink: "%[1]s/log"
    log-queries: off
    log-responses: on
template:
  - id: default
    global-module: mod-dnstap/log
    zonefile-sync: -1
    journal-content: none
zone:
  - domain: example.
    file: "%[3]s"
`, dir, strings.Join(listen, ", "), zone))
	k := &knot{s: s, log: dir + "/log"}
	k.stop = s.daemon(h.Command(s.t.Context(), knotd, "--config", config))
	for _, ip := range listen {
		s.awaitSocket(h, "udp", addrPort(ip, dnsPort))
	}
	return k
}

var dnsClient = regexp.MustCompile(`(?m)^;; To (\S+)@(\d+)\(UDP\)`)

// clients ends the server and returns how often it has answered whom.
func (k *knot) clients() map[netip.AddrPort]int {
	k.s.t.Helper()
	kdig := netnstest.Need(k.s.t, "kdig", "knot-dnsutils")
	k.stop() // it writes the log late
	text := k.s.run(kdig, "-G", k.log)
	clients := map[netip.AddrPort]int{}
	for _, m := range dnsClient.FindAllStringSubmatch(text, -1) {
		a, err := netip.ParseAddr(m[1])
		if err != nil {
			k.s.t.Fatal(err)
		}
		port := 0
		if _, err := fmt.Sscan(m[2], &port); err != nil {
			k.s.t.Fatal(err)
		}
		clients[netip.AddrPortFrom(a, uint16(port))]++
	}
	return clients
}
