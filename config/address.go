package config

import (
	"fmt"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
)

// mistake is what is wrong with an address.
type mistake struct{ msg, remedy string }

// ports is an address and a range of ports, as a listen entry gives it.
type ports struct {
	addr   netip.Addr
	lo, hi uint16
}

func (p ports) String() string {
	if p.lo == p.hi {
		return netip.AddrPortFrom(p.addr, p.lo).String()
	}
	return fmt.Sprintf("%s-%d", netip.AddrPortFrom(p.addr, p.lo), p.hi)
}

// count is how many listeners the entry stands for.
func (p ports) count() int { return int(p.hi) - int(p.lo) + 1 }

// parsePorts reads IP:PORT, [IP]:PORT and, for a listen entry, IP:FIRST-LAST.
func parsePorts(s string) (ports, *mistake) {
	host, port, bad := splitPort(s)
	if bad != nil {
		return ports{}, bad
	}
	addr, bad := parseAddr(host)
	if bad != nil {
		return ports{}, bad
	}
	first, last, ranged := strings.Cut(port, "-")
	lo, bad := parsePort(s, first)
	if bad != nil {
		return ports{}, bad
	}
	hi := lo
	if ranged {
		if hi, bad = parsePort(s, last); bad != nil {
			return ports{}, bad
		}
	}
	if lo > hi {
		return ports{}, &mistake{
			fmt.Sprintf("the port range %d-%d runs backwards", lo, hi),
			fmt.Sprintf("write %d-%d", hi, lo),
		}
	}
	return ports{addr: addr, lo: lo, hi: hi}, nil
}

const rangeRemedy = "write a single port, since only the listen of a service takes ranges"

// parseAddrPort is parsePorts for where only one port makes sense.
func parseAddrPort(s string) (netip.AddrPort, *mistake) {
	p, bad := parsePorts(s)
	if bad == nil && p.lo != p.hi {
		bad = &mistake{quote(s) + " is a port range", rangeRemedy}
	}
	if bad != nil {
		return netip.AddrPort{}, bad
	}
	return netip.AddrPortFrom(p.addr, p.lo), nil
}

// splitPort takes the port from an address and the brackets from IPv6.
func splitPort(s string) (host, port string, bad *mistake) {
	if rest, ok := strings.CutPrefix(s, "["); ok {
		host, port, ok = strings.Cut(rest, "]:")
		if !ok {
			return "", "", &mistake{quote(s) + " has no port", `write "[2001:db8::10]:443": the address in brackets, a colon, the port`}
		}
		if !strings.Contains(host, ":") {
			return "", "", &mistake{quote(s) + " has brackets around what is no IPv6 address", `write "203.0.113.10:443" or "[2001:db8::10]:443"`}
		}
		return host, port, nil
	}
	i := strings.LastIndexByte(s, ':')
	switch {
	case s == "":
		return "", "", &mistake{"the address is empty", `write an IP address and a port, such as "203.0.113.10:443"`}
	case i < 0:
		return "", "", &mistake{quote(s) + " has no port", `write an IP address and a port, such as "203.0.113.10:443"`}
	case i == 0:
		return "", "", &mistake{
			quote(s) + " has no address",
			`write "0.0.0.0:443" for all IPv4 addresses, "[::]:443" for all IPv6 addresses`,
		}
	case strings.Contains(s[:i], ":"):
		return "", "", &mistake{quote(s) + " has no brackets around the IPv6 address", `write "[2001:db8::10]:443": the address in brackets, a colon, the port`}
	}
	return s[:i], s[i+1:], nil
}

// interfaceName is a network interface, netdevice(7), of the letters in common use.
var interfaceName = regexp.MustCompile(`^[A-Za-z0-9_.@-]{1,15}$`)

// parseAddr reads an IP address that a socket can be bound and connected to.
func parseAddr(host string) (netip.Addr, *mistake) {
	a, err := netip.ParseAddr(host)
	switch {
	case isName(host):
		return a, &mistake{quote(host) + " is a host name", "write its IP address, since only the names of backends are looked up"}
	case err != nil:
		return a, &mistake{quote(host) + " is no IP address", `write one such as "203.0.113.10:443" or "[2001:db8::10]:443"`}
	case a.Is4In6():
		return a, &mistake{
			quote(host) + " is IPv4 in the form of IPv6",
			fmt.Sprintf("write it as IPv4, %s", a.Unmap().WithZone("")),
		}
	case a.IsMulticast() || a == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return a, &mistake{quote(host) + " is a multicast or broadcast address", "write a unicast address, since other traffic is not proxied"}
	case a.Zone() != "" && !a.IsLinkLocalUnicast():
		return a, &mistake{quote(host) + " has a zone but is not link-local", "write " + a.WithZone("").String() + " without the zone"}
	case a.Zone() != "" && !interfaceName.MatchString(a.Zone()):
		return a, &mistake{quote(host) + " has a zone that is no network interface", "write the interface after the percent sign, such as fe80::1%eth0"}
	case a.Is6() && a.IsLinkLocalUnicast() && a.Zone() == "":
		return a, &mistake{quote(host) + " is link-local and has no zone", "add the network interface, such as " + host + "%eth0"}
	}
	return a, nil
}

// parsePort reads a port of the address that is given whole for the message.
func parsePort(whole, port string) (uint16, *mistake) {
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 {
		return 0, &mistake{fmt.Sprintf("%s in %s is no port", quote(port), quote(whole)), "write a port from 1 to 65535"}
	}
	return uint16(n), nil
}
