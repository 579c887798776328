package filter

import "golang.org/x/sys/unix"

// node is an expression.
type node struct {
	op          op
	left, right *node
	test        test
}

type op uint8

const (
	opTest op = iota
	opAnd
	opOr
	opNot
)

// test compares one loaded value.
type test struct {
	load    load
	size    uint16 // unix.BPF_B, BPF_H or BPF_W
	offset  uint32
	network uint32 // where the IPv4 header starts, for loadTransport
	mask    uint32 // applied unless 0
	cond    uint16 // unix.BPF_JEQ, BPF_JGT, BPF_JGE or BPF_JSET
	value   uint32
}

type load uint8

const (
	loadAbsolute   load = iota
	loadTransport       // offset counts from the end of the IPv4 header
	loadLen             // the packet's length
	loadTagPresent      // whether there is a VLAN tag beside the packet
	loadTag             // that tag
)

// Offsets of the kernel's ancillary data: SKF_AD_OFF + SKF_AD_VLAN_TAG_PRESENT
// and SKF_AD_VLAN_TAG of linux/filter.h.
const (
	adTag        = 0xfffff000 + 44
	adTagPresent = 0xfffff000 + 48
)

func and(nodes ...*node) *node { return join(opAnd, nodes) }
func or(nodes ...*node) *node  { return join(opOr, nodes) }

// join leaves out nodes that are nil.
func join(op op, nodes []*node) *node {
	var all *node
	for _, n := range nodes {
		switch {
		case n == nil:
		case all == nil:
			all = n
		default:
			all = &node{op: op, left: all, right: n}
		}
	}
	return all
}

func not(n *node) *node { return &node{op: opNot, left: n} }

func equal(size uint16, offset, value uint32) *node { return masked(size, offset, 0, value) }

func masked(size uint16, offset, mask, value uint32) *node {
	return &node{test: test{size: size, offset: offset, mask: mask, cond: unix.BPF_JEQ, value: value}}
}

func compare(l load, cond uint16, value uint32) *node {
	return &node{test: test{load: l, cond: cond, value: value}}
}
