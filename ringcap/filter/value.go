package filter

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// check says what is wrong with a combination of words.
func (q qualifier) check() string {
	_, ether := etherTypes[q.protocol]
	_, transport := transports[q.protocol]
	ok := q.protocol == ""
	switch q.kind {
	case "host", "net":
		ok = ok || ether
	case "port", "portrange":
		ok = ok || transport
	case "proto":
		ok = (q.protocol == "ip" || q.protocol == "ip6") && q.dir == either
	}
	if ok {
		return ""
	}
	return fmt.Sprintf("%q does not go with %q", q.protocol, q.kind)
}

func (p *parser) value(q qualifier) (*node, error) {
	at, word := p.at, p.peek()
	if !isValue(word) {
		return nil, p.errorf("expected a value for %s, got %q", q.kind, word)
	}
	p.next()
	n, err := p.parsed(q, word)
	if err != "" {
		return nil, &Error{Pos: p.tokens[at].pos, Message: err}
	}
	return n, nil
}

// parsed returns a message if the word is no value of the kind.
func (p *parser) parsed(q qualifier, word string) (*node, string) {
	switch q.kind {
	case "host":
		addr, err := netip.ParseAddr(word)
		if err != nil || addr.Zone() != "" || addr.Is4In6() {
			return nil, fmt.Sprintf("%q is not an address", word)
		}
		return p.addresses(q, netip.PrefixFrom(addr, addr.BitLen()))
	case "net":
		prefix, message := p.network(word)
		if message != "" {
			return nil, message
		}
		return p.addresses(q, prefix)
	case "proto":
		number, ok := ipProtocols[word]
		if n, err := strconv.ParseUint(word, 10, 8); err == nil {
			number, ok = uint32(n), true
		}
		switch {
		case !ok:
			return nil, fmt.Sprintf("%q is not a protocol", word)
		case q.protocol == "ip":
			return p.layers.protocol4(number), ""
		}
		return p.layers.protocol6(number), ""
	}
	return p.ports(q, word)
}

func (p *parser) addresses(q qualifier, prefix netip.Prefix) (*node, string) {
	if q.protocol != "" && prefix.Addr().Is6() != (q.protocol == "ip6") {
		return nil, fmt.Sprintf("%q has no address %v", q.protocol, prefix.Addr())
	}
	return p.layers.prefix(q.protocol, q.dir, prefix), ""
}

// network reads 10.0.0.0/8, 10, 10.1 and 10.1.2 (of 8, 16 and 24 bits),
// 10.0.0.0 mask 255.0.0.0, and 2001:db8::/32.
func (p *parser) network(word string) (netip.Prefix, string) {
	text, length, slash := strings.Cut(word, "/")
	bits := -1
	if slash {
		n, err := strconv.ParseUint(length, 10, 8)
		if err != nil {
			return netip.Prefix{}, fmt.Sprintf("%q is not a prefix length", length)
		}
		bits = int(n)
	}
	octets := 4
	if !strings.Contains(text, ":") {
		octets = strings.Count(text, ".") + 1
		text += strings.Repeat(".0", max(4-octets, 0))
	}
	addr, err := netip.ParseAddr(text)
	if err != nil || addr.Zone() != "" || addr.Is4In6() {
		return netip.Prefix{}, fmt.Sprintf("%q is not a network", word)
	}
	switch {
	case !slash && p.take("mask"):
		var ok bool
		if bits, ok = maskBits(p.next()); !ok || addr.Is6() {
			return netip.Prefix{}, "the word after mask is not a mask of IPv4"
		}
	case !slash && addr.Is6():
		bits = 128
	case !slash:
		bits = 8 * octets
	}
	prefix := netip.PrefixFrom(addr, bits)
	switch {
	case !prefix.IsValid():
		return netip.Prefix{}, fmt.Sprintf("%q is not a prefix length of %v", length, addr)
	case prefix.Masked() != prefix:
		return netip.Prefix{}, fmt.Sprintf("%v has bits beyond its length", prefix)
	}
	return prefix, ""
}

func maskBits(word string) (int, bool) {
	addr, err := netip.ParseAddr(word)
	if err != nil || !addr.Is4() {
		return 0, false
	}
	v := addr.As4()
	ones, size := net.IPMask(v[:]).Size()
	return ones, size == 32
}

func (p *parser) ports(q qualifier, word string) (*node, string) {
	protocols := []uint32{unix.IPPROTO_SCTP, unix.IPPROTO_TCP, unix.IPPROTO_UDP}
	if number, ok := transports[q.protocol]; ok {
		protocols = []uint32{number}
	}
	from, to := word, word
	if q.kind == "portrange" {
		if low, high, ok := strings.Cut(word, "-"); ok {
			from, to = low, high
		}
	}
	low, ok := portNumber(from)
	if !ok {
		return nil, fmt.Sprintf("%q is not a port", from)
	}
	high, ok := portNumber(to)
	if !ok {
		return nil, fmt.Sprintf("%q is not a port", to)
	}
	return p.layers.ports(protocols, q.dir, min(low, high), max(low, high)), ""
}

func portNumber(word string) (uint16, bool) {
	n, err := strconv.ParseUint(word, 10, 16)
	return uint16(n), err == nil
}

// length is less and greater. What is at least N for one is not above for the
// other.
func (p *parser) length(cond uint16) (*node, error) {
	n, err := strconv.ParseUint(p.peek(), 10, 32)
	if err != nil {
		return nil, p.errorf("expected a length, got %q", p.peek())
	}
	p.next()
	test := compare(loadLen, cond, uint32(n))
	if cond == unix.BPF_JGT {
		return not(test), nil
	}
	return test, nil
}

func (p *parser) vlan() (*node, error) {
	id := -1
	if n, err := strconv.ParseUint(p.peek(), 10, 16); err == nil {
		if n > 4095 {
			return nil, p.errorf("VLAN %d is over 4095", n)
		}
		p.next()
		id = int(n)
	}
	p.tagged = true
	if p.beside {
		p.beside = false
		return tagBeside(id), nil
	}
	n := p.layers.tag(id)
	p.layers.tags++
	return n, nil
}
