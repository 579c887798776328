package filter

import (
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	maxLength = 1 << 16
	maxDepth  = 200
)

// token is a word or a sign of the expression.
type token struct {
	text string
	pos  int
}

// scan splits an expression. The last token is empty.
func scan(s string) ([]token, error) {
	if len(s) > maxLength {
		return nil, &Error{Pos: maxLength, Message: "expression is too long"}
	}
	var tokens []token
	for i := 0; i < len(s); {
		c := s[i]
		switch {
		case c == ' ' || c == '\t' || c == '\n' || c == '\r':
			i++
		case strings.HasPrefix(s[i:], "&&"):
			tokens = append(tokens, token{"and", i})
			i += 2
		case strings.HasPrefix(s[i:], "||"):
			tokens = append(tokens, token{"or", i})
			i += 2
		case c == '!':
			tokens = append(tokens, token{"not", i})
			i++
		case c == '(' || c == ')':
			tokens = append(tokens, token{string(c), i})
			i++
		case wordByte(c):
			start := i
			for i < len(s) && wordByte(s[i]) {
				i++
			}
			tokens = append(tokens, token{s[start:i], start})
		default:
			return nil, &Error{Pos: i, Message: fmt.Sprintf("unexpected %q", rune(c))}
		}
	}
	return append(tokens, token{"", len(s)}), nil
}

func wordByte(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte(".:/-_", c) >= 0
}

// qualifier is what stands before an address or a port, and stays for the
// values after it: port 80 or 443.
type qualifier struct {
	protocol string
	dir      direction
	kind     string // host, net, port, portrange, proto; "" before the first
}

type parser struct {
	tokens []token
	at     int
	depth  int
	layers layers
	beside bool // the next "vlan" is the tag beside the packet
	tagged bool // there was a "vlan"
	last   qualifier
}

// parse returns nil for an empty expression. tagged says whether it speaks of
// VLANs.
func parse(s string, beside bool) (n *node, tagged bool, err error) {
	tokens, err := scan(s)
	if err != nil {
		return nil, false, err
	}
	p := &parser{tokens: tokens, beside: beside}
	if p.peek() == "" {
		return nil, false, nil
	}
	if n, err = p.expression(); err != nil {
		return nil, false, err
	}
	if p.peek() != "" {
		return nil, false, p.errorf("unexpected %q", p.peek())
	}
	return n, p.tagged, nil
}

func (p *parser) peek() string { return p.tokens[p.at].text }

func (p *parser) next() string {
	t := p.peek()
	if t != "" {
		p.at++
	}
	return t
}

func (p *parser) take(words ...string) bool {
	if slices.Contains(words, p.peek()) {
		p.at++
		return true
	}
	return false
}

func (p *parser) errorf(format string, args ...any) error {
	if p.peek() == "" {
		return &Error{Pos: p.tokens[p.at].pos, Message: "unexpected end"}
	}
	return &Error{Pos: p.tokens[p.at].pos, Message: fmt.Sprintf(format, args...)}
}

// expression is terms joined by and and or, from left to right.
func (p *parser) expression() (*node, error) {
	n, err := p.term()
	for err == nil {
		join := and
		switch {
		case p.take("and"):
		case p.take("or"):
			join = or
		default:
			return n, nil
		}
		var right *node
		if right, err = p.term(); err == nil {
			n = join(n, right)
		}
	}
	return nil, err
}

func (p *parser) term() (*node, error) {
	if p.depth++; p.depth > maxDepth {
		return nil, p.errorf("nested too deeply")
	}
	defer func() { p.depth-- }()
	switch {
	case p.take("not"):
		n, err := p.term()
		if err != nil {
			return nil, err
		}
		return not(n), nil
	case p.take("("):
		return p.parenthesis()
	}
	return p.primitive()
}

func (p *parser) parenthesis() (*node, error) {
	n, err := p.expression()
	if err != nil {
		return nil, err
	}
	if !p.take(")") {
		return nil, p.errorf("expected ), got %q", p.peek())
	}
	return n, nil
}

// etherTypes and ipProtocols are protocols that stand alone.
var (
	etherTypes  = map[string]uint32{"ip": unix.ETH_P_IP, "ip6": unix.ETH_P_IPV6, "arp": unix.ETH_P_ARP, "rarp": unix.ETH_P_RARP}
	ipProtocols = map[string]uint32{
		"tcp": unix.IPPROTO_TCP, "udp": unix.IPPROTO_UDP, "sctp": unix.IPPROTO_SCTP,
		"icmp": unix.IPPROTO_ICMP, "icmp6": unix.IPPROTO_ICMPV6,
	}
	kinds = []string{"host", "net", "port", "portrange", "proto"}
)

func (p *parser) primitive() (*node, error) {
	start := p.at
	switch {
	case p.take("less"):
		return p.length(unix.BPF_JGT)
	case p.take("greater"):
		return p.length(unix.BPF_JGE)
	case p.take("vlan"):
		return p.vlan()
	}
	var q qualifier
	word := p.peek()
	_, ether := etherTypes[word]
	_, proto := ipProtocols[word]
	if ether || proto {
		q.protocol = p.next()
	}
	dir := p.direction(&q.dir)
	switch {
	case p.take(kinds...):
		q.kind = p.tokens[p.at-1].text
	case dir:
		q.kind = "host"
		if p.peek() == "" {
			return nil, p.errorf("")
		}
	case q.protocol != "":
		p.last = q
		return p.alone(q.protocol), nil
	case p.last.kind != "" && isValue(word):
		return p.value(p.last)
	case isValue(word):
		q.kind = "host"
	default:
		return nil, p.errorf("unexpected %q", word)
	}
	p.last = q
	if err := q.check(); err != "" {
		return nil, &Error{Pos: p.tokens[start].pos, Message: err}
	}
	return p.values(q)
}

// reserved are the words that cannot be values.
var reserved = []string{"", "and", "or", "not", "(", ")", "src", "dst", "less", "greater", "vlan", "mask"}

func isValue(word string) bool {
	_, ether := etherTypes[word]
	_, proto := ipProtocols[word]
	return !ether && !proto && !slices.Contains(reserved, word) && !slices.Contains(kinds, word)
}

// direction reads src, dst, src or dst, src and dst, and the same turned round.
func (p *parser) direction(d *direction) bool {
	var other string
	switch {
	case p.take("src"):
		*d, other = source, "dst"
	case p.take("dst"):
		*d, other = destination, "src"
	default:
		return false
	}
	if p.at+2 < len(p.tokens) && p.tokens[p.at+1].text == other {
		switch {
		case p.take("or"):
			p.at++
			*d = either
		case p.take("and"):
			p.at++
			*d = both
		}
	}
	return true
}

// alone is a protocol without an address.
func (p *parser) alone(protocol string) *node {
	if t, ok := etherTypes[protocol]; ok {
		return p.layers.link(t)
	}
	number := ipProtocols[protocol]
	switch protocol {
	case "icmp":
		return p.layers.protocol4(number)
	case "icmp6":
		return p.layers.protocol6(number)
	}
	return or(p.layers.protocol4(number), p.layers.protocol6(number))
}

// values is one value, or several in parentheses.
func (p *parser) values(q qualifier) (*node, error) {
	if !p.take("(") {
		return p.value(q)
	}
	return p.parenthesis()
}
