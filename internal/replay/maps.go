package replay

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// AddIP takes OLD=NEW, two addresses or two prefixes of one length.
func (r *Rewrite) AddIP(s string) error {
	was, is, _ := strings.Cut(s, "=")
	from, err := parsePrefix(was)
	if err != nil {
		return err
	}
	to, err := parsePrefix(is)
	if err != nil {
		return err
	}
	if from.Bits() != to.Bits() || from.Addr().Is4() != to.Addr().Is4() {
		return fmt.Errorf("map %s: both have to be of one family and one length", s)
	}
	r.IPs = append(r.IPs, IPMap{from, to})
	return nil
}

func parsePrefix(s string) (netip.Prefix, error) {
	if strings.Contains(s, "/") {
		p, err := netip.ParsePrefix(s)
		return p.Masked(), err
	}
	a, err := netip.ParseAddr(s)
	if err != nil {
		return netip.Prefix{}, err
	}
	a = a.Unmap().WithZone("")
	return netip.PrefixFrom(a, a.BitLen()), nil
}

// AddPort takes OLD=NEW.
func (r *Rewrite) AddPort(s string) error {
	was, is, _ := strings.Cut(s, "=")
	from, err := strconv.ParseUint(was, 10, 16)
	if err != nil {
		return fmt.Errorf("map port %q: %w", s, err)
	}
	to, err := strconv.ParseUint(is, 10, 16)
	if err != nil {
		return fmt.Errorf("map port %q: %w", s, err)
	}
	if r.Ports == nil {
		r.Ports = make(map[uint16]uint16)
	}
	r.Ports[uint16(from)] = uint16(to)
	return nil
}

// AddMAC takes OLD=NEW.
func (r *Rewrite) AddMAC(s string) error {
	was, is, _ := strings.Cut(s, "=")
	from, err := parseMAC(was)
	if err != nil {
		return err
	}
	to, err := parseMAC(is)
	if err != nil {
		return err
	}
	if r.MACs == nil {
		r.MACs = make(map[MAC]MAC)
	}
	r.MACs[from] = to
	return nil
}

func parseMAC(s string) (MAC, error) {
	hw, err := net.ParseMAC(s)
	if err == nil && len(hw) != 6 {
		err = fmt.Errorf("address %s: not of Ethernet", s)
	}
	if err != nil {
		return MAC{}, err
	}
	return MAC(hw), nil
}

// SetVLAN takes an identifier of 1 to 4094, or "none".
func (r *Rewrite) SetVLAN(s string) error {
	if s == "none" {
		r.VLAN = NoVLAN
		return nil
	}
	id, err := strconv.Atoi(s)
	if err != nil || id < 1 || id > 4094 {
		return fmt.Errorf("VLAN %q: want 1 to 4094, or none", s)
	}
	r.VLAN = id
	return nil
}
