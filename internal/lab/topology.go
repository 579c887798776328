package lab

import (
	"fmt"
	"net"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// prepare makes an empty namespace a host: it forwards, does not look at
// where packets come from, and takes addresses without asking around first.
// This comes before its links, which inherit the settings.
func (h *Host) prepare() error {
	settings := []struct{ key, value string }{
		{"ipv4.ip_forward", "1"}, // first: it resets others
		{"ipv6.conf.all.forwarding", "1"},
		{"ipv4.conf.all.rp_filter", "0"},
		{"ipv4.conf.default.rp_filter", "0"},
		{"ipv4.conf.lo.rp_filter", "0"},
		{"ipv6.conf.all.accept_dad", "0"},
		{"ipv6.conf.default.accept_dad", "0"},
		{"ipv6.conf.default.router_solicitations", "0"},
	}
	if h.Name == "client" {
		// A local route lets IPv4 sockets bind to the client's range; for IPv6
		// the kernel looks for the address itself: inet6_bind().
		settings = append(settings, struct{ key, value string }{"ipv6.ip_nonlocal_bind", "1"})
	}
	for _, s := range settings {
		if err := h.Sysctl(s.key, s.value); err != nil {
			return err
		}
	}
	return h.LinkUp("lo")
}

// addVeth joins h to peer: the link has the given name here and EndLink there.
func (h *Host) addVeth(name string, peer *Host, mtu int) error {
	nl, err := h.Netlink()
	if err != nil {
		return err
	}
	defer nl.Close()
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU = name, mtu
	veth := netlink.NewVeth(attrs)
	veth.PeerName, veth.PeerMTU = EndLink, uint32(mtu)
	veth.PeerNamespace = netlink.NsFd(peer.ns.Fd())
	if err := nl.LinkAdd(veth); err != nil {
		return fmt.Errorf("add link %s from the %s to the %s: %w", name, h.Name, peer.Name, err)
	}
	if err := h.LinkUp(name); err != nil {
		return err
	}
	return peer.LinkUp(EndLink)
}

// address gives the hosts their addresses and routes.
func (l *Lab) address() error {
	err := l.Client.configure(EndLink,
		[]string{ClientIP4 + "/24", ClientIP6 + "/64"},
		[]route{{via: ProxyClientIP4}, {via: ProxyClientIP6}})
	if err != nil {
		return err
	}
	err = l.Client.configure("lo", nil,
		[]route{{to: ClientRange4, local: true}, {to: ClientRange6, local: true}})
	if err != nil {
		return err
	}
	err = l.Proxy.configure(ClientLink,
		[]string{ProxyClientIP4 + "/24", ProxyClientIP6 + "/64"},
		[]route{{to: ClientRange4, via: ClientIP4}, {to: ClientRange6, via: ClientIP6}})
	if err != nil {
		return err
	}
	err = l.Proxy.configure(ServerLink,
		[]string{ProxyServerIP4 + "/24", ProxyServerIP6 + "/64"},
		[]route{{to: ForeignNet4, via: ServerIP4}, {to: ForeignNet6, via: ServerIP6}})
	if err != nil {
		return err
	}
	err = l.Server.configure(EndLink,
		[]string{ServerIP4 + "/24", Server2IP4 + "/24", ServerIP6 + "/64", Server2IP6 + "/64"},
		[]route{{via: ProxyServerIP4}, {via: ProxyServerIP6}})
	if err != nil {
		return err
	}
	return l.Server.configure("lo", []string{ForeignIP4 + "/32", ForeignIP6 + "/128"}, nil)
}

type route struct {
	to    string // prefix; empty is the default route
	via   string // gateway; empty without one
	local bool   // the addresses are the host's own
}

// configure adds addresses to a link of the host, and routes over it.
func (h *Host) configure(link string, addrs []string, routes []route) error {
	nl, err := h.Netlink()
	if err != nil {
		return err
	}
	defer nl.Close()
	l, err := nl.LinkByName(link)
	if err != nil {
		return fmt.Errorf("find link %s of the %s: %w", link, h.Name, err)
	}
	for _, s := range addrs {
		a, err := netlink.ParseAddr(s)
		if err != nil {
			return fmt.Errorf("add address %s: %w", s, err)
		}
		if a.IP.To4() == nil {
			a.Flags = unix.IFA_F_NODAD
		}
		if err := nl.AddrAdd(l, a); err != nil {
			return fmt.Errorf("add address %s to link %s of the %s: %w", s, link, h.Name, err)
		}
	}
	for _, r := range routes {
		kernel, err := r.over(l)
		if err == nil {
			err = nl.RouteAdd(kernel)
		}
		if err != nil {
			return fmt.Errorf("add route %+v over link %s of the %s: %w", r, link, h.Name, err)
		}
	}
	return nil
}

func (r route) over(link netlink.Link) (*netlink.Route, error) {
	out := &netlink.Route{LinkIndex: link.Attrs().Index, Gw: net.ParseIP(r.via)}
	if r.to != "" {
		var err error
		if _, out.Dst, err = net.ParseCIDR(r.to); err != nil {
			return nil, err
		}
	}
	if r.local {
		out.Type = unix.RTN_LOCAL
		out.Table = unix.RT_TABLE_LOCAL
		out.Scope = netlink.SCOPE_HOST
	}
	return out, nil
}
