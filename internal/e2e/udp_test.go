package e2e

import (
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/tproxyd/tproxyd/internal/lab"
	"github.com/tproxyd/tproxyd/internal/netnstest"
)

// serverIPs are the server's addresses that the ways lead to, in their order.
var serverIPs = []string{lab.ServerIP4, lab.ServerIP6, lab.ForeignIP4, lab.ForeignIP6}

// udpServices are the names of a UDP site's.
var udpServices = []string{"vip-udp", "intercept-udp"}

// newUDPSite is newSite for both protocols; the keys are added to the UDP
// services. Flows that nothing ends do not hold up the end of the test.
func newUDPSite(t *testing.T, port int, keys string) *site {
	t.Helper()
	return startSite(t, "[daemon]\ndrain_timeout = \"1s\"\n"+services("tcp", port, "")+services("udp", port, keys))
}

// awaitSocket waits until a host has a socket for a protocol on an address.
func (s *site) awaitSocket(h *lab.Host, protocol string, on netip.AddrPort) {
	s.t.Helper()
	ss := netnstest.Need(s.t, "ss", "iproute2")
	kind := map[string]string{"tcp": "--tcp", "udp": "--udp"}[protocol]
	netnstest.Eventually(s.t, patience, func() bool {
		out, err := h.Command(s.t.Context(), ss, "--no-header", "--listening", "--numeric", kind, "src", on.String()).Output()
		if err != nil {
			s.t.Error(err)
		}
		return len(out) > 0
	}, protocol+" socket of the "+h.Name+" on "+on.String())
}

// addrPort is the address of a server.
func addrPort(ip string, port int) netip.AddrPort {
	return netip.AddrPortFrom(netip.MustParseAddr(ip), uint16(port))
}

var sample = regexp.MustCompile(`(?m)^(\w+)\{([^}]*)\} (\S+)$`)

// udpSamples returns the values that a metric of a service has now, by its
// other label, whose name is given.
func (s *site) udpSamples(metric, service, label string) map[string]float64 {
	s.t.Helper()
	text, err := page("/metrics")
	if err != nil {
		s.t.Fatal(err)
	}
	values := map[string]float64{}
	for _, m := range sample.FindAllStringSubmatch(text, -1) {
		labels := strings.Split(m[2], ",")
		if m[1] != metric || !slices.Contains(labels, `service="`+service+`"`) {
			continue
		}
		key := ""
		for _, l := range labels {
			if value, ok := strings.CutPrefix(l, label+"="); ok {
				key = strings.Trim(value, `"`)
			}
		}
		value, err := strconv.ParseFloat(m[3], 64)
		if err != nil {
			s.t.Fatal(err)
		}
		values[key] = value
	}
	if len(values) == 0 {
		s.t.Fatalf("the service %s has no metric %s:\n%s", service, metric, text)
	}
	return values
}

// wantUDP fails the test if a UDP service has had no flow or has carried
// nothing in one direction, or if a flow has ended or a datagram been dropped
// for a reason that is not given.
func (s *site) wantUDP(reasons ...string) {
	s.t.Helper()
	for _, service := range udpServices {
		s.wantUDPService(service, reasons...)
	}
}

func (s *site) wantUDPService(service string, reasons ...string) {
	s.t.Helper()
	if n := s.udpSamples("tproxyd_udp_flows_total", service, ""); n[""] == 0 {
		s.t.Errorf("the service %s had no flow", service)
	}
	for direction, n := range s.udpSamples("tproxyd_datagrams_total", service, "direction") {
		if n == 0 {
			s.t.Errorf("the service %s has passed on nothing in direction %s", service, direction)
		}
	}
	for _, metric := range []string{"tproxyd_udp_dropped_total", "tproxyd_udp_flows_closed_total"} {
		for reason, n := range s.udpSamples(metric, service, "reason") {
			if n > 0 && !slices.Contains(reasons, reason) {
				s.t.Errorf("%s of the service %s is %v by %s", metric, service, n, reason)
			}
		}
	}
}

// awaitNoFlow waits until the UDP services have no flow left.
func (s *site) awaitNoFlow() {
	s.t.Helper()
	for _, service := range udpServices {
		netnstest.Eventually(s.t, patience, func() bool {
			return s.udpSamples("tproxyd_udp_flows_active", service, "")[""] == 0
		}, "no flow of the service "+service+" is left")
	}
}
