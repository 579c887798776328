package proxy

import (
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"github.com/tproxyd/tproxyd/internal/lab"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// onLinks runs do with a netlink handle of h.
func (b *bed) onLinks(h *lab.Host, do func(*netlink.Handle) error) {
	b.t.Helper()
	nl, err := h.Netlink()
	if err != nil {
		b.t.Fatal(err)
	}
	defer nl.Close()
	if err := do(nl); err != nil {
		b.t.Fatal(err)
	}
}

// narrowLink makes both ends of the link between the proxy and a side narrow.
func (b *bed) narrowLink(side int) {
	b.t.Helper()
	ends := map[*lab.Host]string{b.Client: lab.EndLink, b.Proxy: lab.ClientLink}
	if side == upstream {
		ends = map[*lab.Host]string{b.Server: lab.EndLink, b.Proxy: lab.ServerLink}
	}
	for h, name := range ends {
		b.onLinks(h, func(nl *netlink.Handle) error {
			link, err := nl.LinkByName(name)
			if err != nil {
				return err
			}
			return nl.LinkSetMTU(link, narrowMTU)
		})
	}
}

// narrowNet makes h a router to networks with a narrow link, where all that
// fits is gone. The proxy reaches them by h.
func (b *bed) narrowNet(h *lab.Host, via4, via6 string, nets ...string) {
	b.t.Helper()
	b.unlimitedICMP(h)
	b.onLinks(h, func(nl *netlink.Handle) error {
		attrs := netlink.NewLinkAttrs()
		attrs.Name, attrs.MTU = "narrow", narrowMTU
		veth := netlink.NewVeth(attrs)
		veth.PeerName = "narrow-end"
		if err := nl.LinkAdd(veth); err != nil {
			return err
		}
		link, err := nl.LinkByName("narrow")
		if err != nil {
			return err
		}
		if err := nl.LinkSetARPOff(link); err != nil { // nobody is there to ask
			return err
		}
		if err := nl.LinkSetUp(link); err != nil {
			return err
		}
		for _, n := range nets {
			if err := nl.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Dst: ipNet(n)}); err != nil {
				return err
			}
		}
		peer, err := nl.LinkByName("narrow-end")
		if err != nil {
			return err
		}
		return nl.LinkSetUp(peer)
	})
	b.onLinks(b.Proxy, func(nl *netlink.Handle) error {
		for i, n := range nets {
			if err := nl.RouteReplace(&netlink.Route{Dst: ipNet(n), Gw: net.ParseIP([]string{via4, via6}[i])}); err != nil {
				return err
			}
		}
		return nil
	})
}

func ipNet(s string) *net.IPNet {
	_, n, err := net.ParseCIDR(s)
	if err != nil {
		panic(err)
	}
	return n
}

// unlimitedICMP makes h answer every packet, however many there are.
func (b *bed) unlimitedICMP(h *lab.Host) {
	b.t.Helper()
	for _, key := range []string{"ipv4/icmp_ratelimit", "ipv6/icmp/ratelimit"} {
		if err := h.Sysctl(key, "0"); err != nil {
			b.t.Fatal(err)
		}
	}
}

// deadNet makes the server a router that has no way to networks, to which the
// proxy has one by it.
func (b *bed) deadNet(nets ...string) {
	b.t.Helper()
	b.unlimitedICMP(b.Server)
	b.onLinks(b.Server, func(nl *netlink.Handle) error {
		for _, n := range nets {
			if err := nl.RouteReplace(&netlink.Route{Dst: ipNet(n), Type: unix.RTN_UNREACHABLE}); err != nil {
				return err
			}
		}
		return nil
	})
	b.onLinks(b.Proxy, func(nl *netlink.Handle) error {
		for i, n := range nets {
			via := []string{lab.ServerIP4, lab.ServerIP6}[i]
			if err := nl.RouteReplace(&netlink.Route{Dst: ipNet(n), Gw: net.ParseIP(via)}); err != nil {
				return err
			}
		}
		return nil
	})
}

// icmpErrors is how many ICMP errors h has got in the family of ip.
func (b *bed) icmpErrors(h *lab.Host, ip netip.Addr) (n uint64) {
	b.t.Helper()
	file, fields := "snmp", []string{"Icmp InDestUnreachs"}
	if ip.Is6() {
		file, fields = "snmp6", []string{"Icmp6InDestUnreachs", "Icmp6InPktTooBigs"}
	}
	err := h.Do(func() error {
		text, err := os.ReadFile("/proc/thread-self/net/" + file)
		if err != nil {
			return err
		}
		counters := snmpCounters(string(text))
		for _, f := range fields {
			n += counters[f]
		}
		return nil
	})
	if err != nil {
		b.t.Fatal(err)
	}
	return n
}

// snmpCounters reads /proc/net/snmp, whose lines of names come before those of
// values, or /proc/net/snmp6, which has both in one line.
func snmpCounters(text string) map[string]uint64 {
	all := map[string]uint64{}
	var names []string
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		switch {
		case len(f) == 2 && !strings.HasSuffix(f[0], ":"):
			all[f[0]], _ = strconv.ParseUint(f[1], 10, 64)
		case len(f) == 0:
		case len(names) != len(f) || names[0] != f[0]:
			names = f
		default:
			for i, name := range names[1:] {
				all[strings.TrimSuffix(names[0], ":")+" "+name], _ = strconv.ParseUint(f[i+1], 10, 64)
			}
			names = nil
		}
	}
	return all
}
