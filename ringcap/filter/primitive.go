package filter

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"
)

// layers is where the headers of a packet are, which "vlan" moves.
type layers struct{ tags uint32 }

func (l layers) etherType() uint32 { return 12 + 4*l.tags }
func (l layers) network() uint32   { return 14 + 4*l.tags }

func (l layers) link(etherType uint32) *node { return equal(unix.BPF_H, l.etherType(), etherType) }

// direction of an address or a port.
type direction uint8

const (
	either direction = iota
	source
	destination
	both
)

// sides applies a test of one side to those that are meant.
func (d direction) sides(at func(src bool) *node) *node {
	switch d {
	case source:
		return at(true)
	case destination:
		return at(false)
	case both:
		return and(at(true), at(false))
	default:
		return or(at(true), at(false))
	}
}

// addressProtocols are where an IPv4 address can be, and how far behind the
// link header source and destination are.
var addressProtocols = []struct {
	name                      string
	etherType, source, target uint32
}{
	{"ip", unix.ETH_P_IP, 12, 16},
	{"arp", unix.ETH_P_ARP, 14, 24},
	{"rarp", unix.ETH_P_RARP, 14, 24},
}

// prefix is a test of addresses; protocol is "" for all that have them.
func (l layers) prefix(protocol string, d direction, p netip.Prefix) *node {
	if p.Addr().Is6() {
		return and(l.link(unix.ETH_P_IPV6), d.sides(func(src bool) *node { return l.prefix6(src, p) }))
	}
	addr := p.Addr().As4()
	mask := ^uint32(0) << (32 - p.Bits())
	value := binary.BigEndian.Uint32(addr[:])
	var some *node
	for _, proto := range addressProtocols {
		if protocol != "" && protocol != proto.name {
			continue
		}
		some = or(some, and(l.link(proto.etherType), d.sides(func(src bool) *node {
			off := l.network() + proto.target
			if src {
				off = l.network() + proto.source
			}
			if p.Bits() == 0 {
				return always(off)
			}
			if p.Bits() == 32 {
				return equal(unix.BPF_W, off, value)
			}
			return masked(unix.BPF_W, off, mask, value)
		})))
	}
	return some
}

// always holds for every packet that is long enough to have the word at off.
func always(off uint32) *node {
	return &node{test: test{size: unix.BPF_W, offset: off, cond: unix.BPF_JGE}}
}

func (l layers) prefix6(src bool, p netip.Prefix) *node {
	off := l.network() + 24
	if src {
		off = l.network() + 8
	}
	addr := p.Addr().As16()
	var all *node
	for i := range 4 {
		bits := min(max(p.Bits()-32*i, 0), 32)
		value := binary.BigEndian.Uint32(addr[4*i:])
		switch bits {
		case 0:
		case 32:
			all = and(all, equal(unix.BPF_W, off+uint32(4*i), value))
		default:
			all = and(all, masked(unix.BPF_W, off+uint32(4*i), ^uint32(0)<<(32-bits), value))
		}
	}
	if all == nil {
		return always(off)
	}
	return all
}

// transports are the protocols that "port" stands for.
var transports = map[string]uint32{"tcp": unix.IPPROTO_TCP, "udp": unix.IPPROTO_UDP, "sctp": unix.IPPROTO_SCTP}

// protocol4 and protocol6 test the protocol of a packet; in IPv6 that of a
// fragment, too, but behind no other extension header.
func (l layers) protocol4(number uint32) *node {
	return and(l.link(unix.ETH_P_IP), equal(unix.BPF_B, l.network()+9, number))
}

func (l layers) protocol6(number uint32) *node {
	next := l.network() + 6
	return and(l.link(unix.ETH_P_IPV6), or(
		equal(unix.BPF_B, next, number),
		and(equal(unix.BPF_B, next, unix.IPPROTO_FRAGMENT), equal(unix.BPF_B, l.network()+40, number))))
}

// ports is a test of ports from low to high.
func (l layers) ports(protocols []uint32, d direction, low, high uint16) *node {
	oneOf := func(offset uint32) *node {
		var some *node
		for _, p := range protocols {
			some = or(some, equal(unix.BPF_B, offset, p))
		}
		return some
	}
	port := func(src bool, t test) *node {
		if !src {
			t.offset += 2
		}
		t.size = unix.BPF_H
		return within(t, low, high)
	}
	n := l.network()
	unfragmented := not(&node{test: test{size: unix.BPF_H, offset: n + 6, cond: unix.BPF_JSET, value: 0x1fff}})
	v4 := and(l.link(unix.ETH_P_IP), oneOf(n+9), unfragmented, d.sides(func(src bool) *node {
		return port(src, test{load: loadTransport, network: n})
	}))
	v6 := and(l.link(unix.ETH_P_IPV6), oneOf(n+6), d.sides(func(src bool) *node {
		return port(src, test{offset: n + 40})
	}))
	return or(v4, v6)
}

func within(t test, low, high uint16) *node {
	if low == high {
		t.cond, t.value = unix.BPF_JEQ, uint32(low)
		return &node{test: t}
	}
	above := t
	t.cond, t.value = unix.BPF_JGE, uint32(low)
	above.cond, above.value = unix.BPF_JGT, uint32(high)
	return and(&node{test: t}, not(&node{test: above}))
}

// tag is a test for a VLAN tag in the packet; id below 0 is any.
func (l layers) tag(id int) *node {
	is := or(l.link(unix.ETH_P_8021Q), l.link(unix.ETH_P_8021AD), l.link(unix.ETH_P_QINQ1))
	if id < 0 {
		return is
	}
	return and(is, masked(unix.BPF_H, l.network(), 0xfff, uint32(id)))
}

// tagBeside is a test for a VLAN tag that the kernel took out.
func tagBeside(id int) *node {
	is := compare(loadTagPresent, unix.BPF_JEQ, 1)
	if id < 0 {
		return is
	}
	t := test{load: loadTag, mask: 0xfff, cond: unix.BPF_JEQ, value: uint32(id)}
	return and(is, &node{test: t})
}
