package lab

import (
	"errors"
	"fmt"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// state is what of a host a lab puts back: the sandbox starts with the
// kernel's policy rules, no link of ours and no nftables.
type state struct {
	rules map[string]bool
}

func ruleKey(family int, r *netlink.Rule) string { return fmt.Sprintf("%d %+v", family, *r) }

func (h *Host) state() (*state, error) {
	nl, err := h.Netlink()
	if err != nil {
		return nil, err
	}
	defer nl.Close()
	s := &state{rules: map[string]bool{}}
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		rules, err := nl.RuleList(family)
		if err != nil {
			return nil, fmt.Errorf("list policy rules of the %s: %w", h.Name, err)
		}
		for i := range rules {
			s.rules[ruleKey(family, &rules[i])] = true
		}
	}
	return s, nil
}

// restore removes everything that was added since s.
func (h *Host) restore(s *state) error {
	nl, err := h.Netlink()
	if err != nil {
		return err
	}
	defer nl.Close()
	errs := []error{h.flushNFT()}
	for _, name := range []string{ClientLink, ServerLink} {
		errs = append(errs, removeLink(nl, name))
	}
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		errs = append(errs, removeRules(nl, family, s), removeRoutes(nl, family))
	}
	return errors.Join(errs...)
}

func removeLink(nl *netlink.Handle, name string) error {
	link, err := nl.LinkByName(name)
	if _, missing := errors.AsType[netlink.LinkNotFoundError](err); missing {
		return nil
	}
	if err == nil {
		err = nl.LinkDel(link)
	}
	if err != nil {
		return fmt.Errorf("remove link %s: %w", name, err)
	}
	return nil
}

func removeRules(nl *netlink.Handle, family int, s *state) error {
	rules, err := nl.RuleList(family)
	if err != nil {
		return fmt.Errorf("list policy rules: %w", err)
	}
	for i := range rules {
		r := &rules[i]
		if s.rules[ruleKey(family, r)] {
			continue
		}
		r.Family = family
		if err := nl.RuleDel(r); err != nil {
			return fmt.Errorf("remove policy rule %v: %w", r, err)
		}
	}
	return nil
}

// removeRoutes empties the tables that policy rules led to. Those of the main
// table have gone with their links.
func removeRoutes(nl *netlink.Handle, family int) error {
	routes, err := nl.RouteListFiltered(family,
		&netlink.Route{Table: unix.RT_TABLE_UNSPEC}, netlink.RT_FILTER_TABLE)
	if err != nil {
		return fmt.Errorf("list routes: %w", err)
	}
	for i := range routes {
		r := &routes[i]
		switch r.Table {
		case unix.RT_TABLE_MAIN, unix.RT_TABLE_LOCAL, unix.RT_TABLE_DEFAULT:
			continue
		}
		if err := nl.RouteDel(r); err != nil {
			return fmt.Errorf("remove route %v: %w", r, err)
		}
	}
	return nil
}

func (h *Host) flushNFT() error {
	conn, err := h.nft()
	if err != nil {
		return err
	}
	conn.FlushRuleset()
	if err := conn.Flush(); err != nil {
		return fmt.Errorf("flush nftables of the %s: %w", h.Name, err)
	}
	return nil
}

func (h *Host) nft() (*nftables.Conn, error) {
	conn, err := nftables.New(nftables.WithNetNSFd(int(h.ns.Fd())))
	if err != nil {
		return nil, fmt.Errorf("open nftables of the %s: %w", h.Name, err)
	}
	return conn, nil
}
