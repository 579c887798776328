package rules

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// families returns those that the kernel has switched on.
func families() []int {
	off, err := os.ReadFile("/proc/sys/net/ipv6/conf/lo/disable_ipv6")
	if err != nil || strings.TrimSpace(string(off)) != "0" {
		return []int{netlink.FAMILY_V4}
	}
	return []int{netlink.FAMILY_V4, netlink.FAMILY_V6}
}

func familyName(family int) string {
	if family == netlink.FAMILY_V6 {
		return "IPv6"
	}
	return "IPv4"
}

// addPolicy adds the policy rule and the route. undo removes those that were
// not there before, also after an error.
func (p Plan) addPolicy() (undo func() error, err error) {
	var undos []func() error
	undo = func() error {
		var errs []error
		for _, u := range undos {
			errs = append(errs, u())
		}
		return errors.Join(errs...)
	}
	nl, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return undo, os.NewSyscallError("socket(NETLINK_ROUTE)", err)
	}
	defer nl.Close()
	for _, family := range families() {
		missing, err := p.missing(nl, family)
		if err != nil {
			return undo, err
		}
		if missing.route {
			if err := p.addRoute(nl, family); err != nil {
				return undo, err
			}
			undos = append(undos, func() error { return p.withHandle(family, p.removeRoute) })
		}
		if missing.rule {
			if err := nl.RuleAdd(p.rule(family)); err != nil {
				return undo, fmt.Errorf("add %s policy rule fwmark %#x lookup %d: %w",
					familyName(family), p.Mark, p.RouteTable, err)
			}
			undos = append(undos, func() error { return p.withHandle(family, p.removeRule) })
		}
	}
	return undo, nil
}

func (p Plan) removePolicy() error {
	var errs []error
	for _, family := range families() {
		errs = append(errs, p.withHandle(family, p.removeRule), p.withHandle(family, p.removeRoute))
	}
	return errors.Join(errs...)
}

func (p Plan) withHandle(family int, do func(*netlink.Handle, int) error) error {
	nl, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return os.NewSyscallError("socket(NETLINK_ROUTE)", err)
	}
	defer nl.Close()
	return do(nl, family)
}

func (p Plan) rule(family int) *netlink.Rule {
	r := netlink.NewRule()
	r.Family, r.Priority, r.Mark, r.Table = family, p.Priority, p.Mark, p.RouteTable
	return r
}

type missing struct{ rule, route bool }

// missing finds out what of the policy is not there, and refuses a mark or a
// table that others use.
func (p Plan) missing(nl *netlink.Handle, family int) (missing, error) {
	m := missing{rule: true, route: true}
	rules, err := policyRules(nl, family)
	if err != nil {
		return m, err
	}
	for i := range rules {
		switch r := &rules[i]; {
		case p.isOurs(r):
			m.rule = false
		case r.Mark == p.Mark && r.Table != p.RouteTable:
			return m, fmt.Errorf("mark %#x is in use, by the %s policy rule of priority %d to table %d: choose another mark",
				p.Mark, familyName(family), r.Priority, r.Table)
		}
	}
	routes, err := p.routes(nl, family)
	if err != nil {
		return m, err
	}
	for i := range routes {
		if !isLocalDefault(&routes[i]) {
			return m, fmt.Errorf("route table %d is in use, by the %s route %v: choose another table",
				p.RouteTable, familyName(family), routes[i])
		}
		m.route = false
	}
	return m, nil
}

// whole lists once more what changed during the listing: NLM_F_DUMP_INTR.
func whole(list func() error) error {
	const tries = 10
	var err error
	for range tries {
		if err = list(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
	}
	return err
}

func policyRules(nl *netlink.Handle, family int) ([]netlink.Rule, error) {
	var rules []netlink.Rule
	err := whole(func() (err error) {
		rules, err = nl.RuleList(family)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list %s policy rules: %w", familyName(family), err)
	}
	return rules, nil
}

func (p Plan) isOurs(r *netlink.Rule) bool {
	return r.Mark == p.Mark && r.Table == p.RouteTable && r.Priority == p.Priority
}

func (p Plan) routes(nl *netlink.Handle, family int) ([]netlink.Route, error) {
	var routes []netlink.Route
	err := whole(func() (err error) {
		routes, err = nl.RouteListFiltered(family, &netlink.Route{Table: p.RouteTable}, netlink.RT_FILTER_TABLE)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list %s routes of table %d: %w", familyName(family), p.RouteTable, err)
	}
	return routes, nil
}

func isLocalDefault(r *netlink.Route) bool {
	if r.Type != unix.RTN_LOCAL {
		return false
	}
	if r.Dst == nil {
		return true
	}
	ones, _ := r.Dst.Mask.Size()
	return ones == 0
}

func (p Plan) addRoute(nl *netlink.Handle, family int) error {
	lo, err := nl.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("find link lo: %w", err)
	}
	everything := &net.IPNet{IP: net.IPv4zero.To4(), Mask: net.CIDRMask(0, 32)}
	if family == netlink.FAMILY_V6 {
		everything = &net.IPNet{IP: net.IPv6zero, Mask: net.CIDRMask(0, 128)}
	}
	err = nl.RouteAdd(&netlink.Route{
		LinkIndex: lo.Attrs().Index, Dst: everything, Table: p.RouteTable,
		Type: unix.RTN_LOCAL, Scope: netlink.SCOPE_HOST,
	})
	if err != nil {
		return fmt.Errorf("add %s route local default dev lo table %d (is lo up?): %w",
			familyName(family), p.RouteTable, err)
	}
	return nil
}

func (p Plan) removeRule(nl *netlink.Handle, family int) error {
	rules, err := policyRules(nl, family)
	if err != nil {
		return err
	}
	for i := range rules {
		if !p.isOurs(&rules[i]) {
			continue
		}
		if err := nl.RuleDel(p.rule(family)); err != nil {
			return fmt.Errorf("delete %s policy rule fwmark %#x lookup %d: %w",
				familyName(family), p.Mark, p.RouteTable, err)
		}
	}
	return nil
}

func (p Plan) removeRoute(nl *netlink.Handle, family int) error {
	routes, err := p.routes(nl, family)
	if err != nil {
		return err
	}
	for i := range routes {
		if !isLocalDefault(&routes[i]) {
			continue
		}
		if err := nl.RouteDel(&routes[i]); err != nil {
			return fmt.Errorf("delete %s route local default table %d: %w",
				familyName(family), p.RouteTable, err)
		}
	}
	return nil
}
