package e2e

import (
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"testing"

	"github.com/tproxyd/tproxyd/internal/netnstest"
)

var calls = regexp.MustCompile(`(Successful|Failed) call +\| +\d+ +\| +(\d+)`)

// TestSIP makes calls: of the client to the server and back, three datagrams
// and four, all from one port.
func TestSIP(t *testing.T) {
	const port, count = 5060, "200"
	sipp := netnstest.Need(t, "sipp", "sip-tester")
	s := newUDPSite(t, port, "")
	for _, ip := range serverIPs {
		s.daemon(s.Server.Command(t.Context(), sipp, "-sn", "uas", "-i", bracketed(ip), "-p", fmt.Sprint(port), "-nostdin"))
		s.awaitSocket(s.Server, "udp", addrPort(ip, port))
	}
	for _, w := range ways {
		// It ends with 0 when all calls are good, also when that took several
		// tries; the proxy's counters tell whether it has lost any.
		out := s.run(sipp, "-sn", "uac", net.JoinHostPort(w.ip, fmt.Sprint(port)), "-i", bracketed(w.client), "-p", fmt.Sprint(port),
			"-m", count, "-r", "200", "-nostdin")
		got := map[string]string{}
		for _, m := range calls.FindAllStringSubmatch(out, -1) {
			got[m[1]] = m[2] // the last table has the sum
		}
		if got["Successful"] != count || got["Failed"] != "0" {
			t.Errorf("%s: calls: %v, want %s successful ones:\n%s", w.name, got, count, out)
		}
	}
	s.wantUDP()
}

// bracketed is an address as sipp wants it.
func bracketed(ip string) string {
	if netip.MustParseAddr(ip).Is6() {
		return "[" + ip + "]"
	}
	return ip
}
