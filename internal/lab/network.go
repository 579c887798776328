package lab

import (
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
)

// A Network is hosts on segments, for tests to which the one proxy of a [Lab]
// is not enough. It leaves the namespace of the sandbox itself alone.
type Network struct {
	hub   *Host // where the bridges are
	hosts []*Host
	links int
}

// NewNetwork makes a network without hosts.
func NewNetwork() (*Network, error) {
	if !InSandbox() {
		return nil, fmt.Errorf("make network: %w", ErrNoSandbox)
	}
	hub, err := newHost("hub")
	if err != nil {
		return nil, err
	}
	n := &Network{hub: hub}
	if err := hub.prepare(); err != nil {
		return nil, errors.Join(fmt.Errorf("make network: %w", err), n.Close())
	}
	return n, nil
}

// Host adds a host. One called client may bind sockets to addresses that are
// not its own.
func (n *Network) Host(name string) (*Host, error) {
	h, err := newHost(name)
	if err != nil {
		return nil, err
	}
	n.hosts = append(n.hosts, h)
	return h, h.prepare()
}

// Segment adds a wire that any number of hosts can be attached to.
func (n *Network) Segment(name string) error {
	nl, err := n.hub.Netlink()
	if err != nil {
		return err
	}
	defer nl.Close()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = name
	snooping := false // it would keep neighbour discovery back at first
	if err := nl.LinkAdd(&netlink.Bridge{LinkAttrs: attrs, MulticastSnooping: &snooping}); err != nil {
		return fmt.Errorf("add segment %s: %w", name, err)
	}
	return n.hub.LinkUp(name)
}

// Attach gives a host a link to a segment, with addresses such as
// 198.18.1.1/24.
func (n *Network) Attach(h *Host, link, segment string, addrs ...string) error {
	nl, err := n.hub.Netlink()
	if err != nil {
		return err
	}
	defer nl.Close()
	bridge, err := nl.LinkByName(segment)
	if err != nil {
		return fmt.Errorf("find segment %s: %w", segment, err)
	}
	attrs := netlink.NewLinkAttrs()
	n.links++
	attrs.Name, attrs.MasterIndex = fmt.Sprintf("port%d", n.links), bridge.Attrs().Index
	veth := netlink.NewVeth(attrs)
	veth.PeerName, veth.PeerNamespace = link, netlink.NsFd(h.ns.Fd())
	if err := nl.LinkAdd(veth); err != nil {
		return fmt.Errorf("attach the %s to segment %s: %w", h.Name, segment, err)
	}
	if err := errors.Join(n.hub.LinkUp(attrs.Name), h.LinkUp(link)); err != nil {
		return err
	}
	return h.configure(link, addrs, nil)
}

// Close takes the network down. Sockets and programs in it should have ended
// before.
func (n *Network) Close() error {
	var errs []error
	for _, h := range append(n.hosts, n.hub) {
		errs = append(errs, h.close())
	}
	return errors.Join(errs...)
}

// AddRoute adds a route over a link: to a prefix, or to everywhere if that is
// empty, by a gateway.
func (h *Host) AddRoute(link, to, gateway string) error {
	return h.configure(link, nil, []route{{to: to, via: gateway}})
}

// Own makes all addresses of a prefix the host's own.
func (h *Host) Own(prefix string) error {
	return h.configure("lo", nil, []route{{to: prefix, local: true}})
}
