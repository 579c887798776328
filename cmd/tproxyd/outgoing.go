package main

import (
	"fmt"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// refuseDefaultRoute keeps what is made for test networks off an interface
// that the rest of the world is behind.
func refuseDefaultRoute(device string, force bool) error {
	if force {
		return nil
	}
	link, err := netlink.LinkByName(device)
	if err != nil {
		return fmt.Errorf("find interface %s: %w", device, err)
	}
	has, err := hasDefaultRoute(link.Attrs().Index)
	if err != nil {
		return err
	}
	if has {
		return fmt.Errorf("interface %s has a default route: what is sent may leave this network; --force sends it", device)
	}
	return nil
}

// hasDefaultRoute looks in all routing tables of both families.
func hasDefaultRoute(index int) (bool, error) {
	all := &netlink.Route{Table: unix.RT_TABLE_UNSPEC}
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		routes, err := netlink.RouteListFiltered(family, all, netlink.RT_FILTER_TABLE)
		if err != nil {
			return false, fmt.Errorf("list routes: %w", err)
		}
		for i := range routes {
			if toEverywhere(&routes[i]) && over(&routes[i], index) {
				return true, nil
			}
		}
	}
	return false, nil
}

func toEverywhere(r *netlink.Route) bool {
	if r.Type != unix.RTN_UNICAST {
		return false
	}
	if r.Dst == nil {
		return true
	}
	ones, _ := r.Dst.Mask.Size()
	// Two halves do for a default route, as VPNs make it; 2000::/3 for IPv6.
	return ones <= 1 || ones == 3 && r.Dst.IP.To4() == nil
}

func over(r *netlink.Route, index int) bool {
	if r.LinkIndex == index {
		return true
	}
	for _, hop := range r.MultiPath {
		if hop.LinkIndex == index {
			return true
		}
	}
	return false
}
