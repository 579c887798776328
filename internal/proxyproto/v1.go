package proxyproto

import (
	"bytes"
	"errors"
	"net/netip"
	"strconv"
)

var (
	errLineProtocol = errors.New("PROXY v1 header: protocol is not TCP4, TCP6 or UNKNOWN")
	errLineEnd      = errors.New("PROXY v1 header: CR and LF do not stand together")
	errLineLength   = errors.New("PROXY v1 header: line is too long")
	errLineByte     = errors.New("PROXY v1 header: character that no address has")
	errLineFields   = errors.New("PROXY v1 header: not two addresses and two ports with one space between")
	errLineAddress  = errors.New("PROXY v1 header: address is not one of the family")
	errLinePort     = errors.New("PROXY v1 header: port is no number from 0 to 65535 without leading zeroes")
)

// protocol is one that a line may name.
type protocol struct {
	name  string
	limit int // of the line with its CRLF (specification, 2.1)
}

var protocols = [...]protocol{
	{name: "TCP4 ", limit: 56},
	{name: "TCP6 ", limit: 104},
	{name: "UNKNOWN", limit: MaxV1},
}

func (p protocol) isUnknown() bool { return p == protocols[2] }

// parseV1 reads a line that begins with the signature.
func (h *Header) parseV1(b []byte) (int, error) {
	p, err := lineProtocol(b[len(signatureV1):])
	if err != nil {
		return 0, err
	}
	fields := len(signatureV1) + len(p.name)
	n, err := lineEnd(b[:min(len(b), p.limit)], fields, p)
	if err != nil {
		return 0, err
	}
	h.Version, h.Local = 1, p.isUnknown()
	if h.Local {
		return n, nil
	}
	return n, h.parseFields(b[fields:n-len("\r\n")], p == protocols[0])
}

// lineProtocol tells the protocol from what follows the signature.
func lineProtocol(rest []byte) (protocol, error) {
	for _, p := range protocols {
		n := min(len(rest), len(p.name))
		switch {
		case text(rest[:n]) != p.name[:n]:
			continue
		case n < len(p.name):
			return protocol{}, ErrShort
		}
		return p, nil
	}
	return protocol{}, errLineProtocol
}

// lineEnd finds the end of a line whose first i bytes are known. The line is
// cut where it must have ended.
func lineEnd(line []byte, i int, p protocol) (int, error) {
	if p.isUnknown() && i < len(line) && line[i] != ' ' && line[i] != '\r' {
		return 0, errLineProtocol
	}
	for ; i < len(line); i++ {
		c := line[i]
		switch {
		case c == '\r' && i+1 == len(line): // the LF is not here yet
		case c == '\r' && line[i+1] == '\n':
			return i + len("\r\n"), nil
		case c == '\r', c == '\n':
			return 0, errLineEnd
		case !p.isUnknown() && !inField(c):
			return 0, errLineByte
		}
	}
	if len(line) == p.limit {
		return 0, errLineLength
	}
	return 0, ErrShort
}

// inField says whether addresses, ports and the spaces between have the
// character.
func inField(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F' || c == ':' || c == '.' || c == ' '
}

// parseFields reads two addresses and two ports.
func (h *Header) parseFields(rest []byte, v4 bool) error {
	var fields [4][]byte
	for i := range fields {
		field, after, found := bytes.Cut(rest, []byte(" "))
		if found == (i == len(fields)-1) {
			return errLineFields
		}
		fields[i], rest = field, after
	}
	source, err := parseAddr(fields[0], v4)
	if err != nil {
		return err
	}
	destination, err := parseAddr(fields[1], v4)
	if err != nil {
		return err
	}
	sourcePort, err := parsePort(fields[2])
	if err != nil {
		return err
	}
	destinationPort, err := parsePort(fields[3])
	if err != nil {
		return err
	}
	h.pair(source, destination, sourcePort, destinationPort)
	return nil
}

func parseAddr(field []byte, v4 bool) (netip.Addr, error) {
	a, err := netip.ParseAddr(text(field))
	if err != nil || a.Is4() != v4 {
		return netip.Addr{}, errLineAddress // err would keep the text
	}
	return a, nil
}

func parsePort(field []byte) (uint16, error) {
	if len(field) == 0 || len(field) > 5 || field[0] == '0' && len(field) > 1 {
		return 0, errLinePort
	}
	port := 0
	for _, c := range field {
		if c < '0' || c > '9' {
			return 0, errLinePort
		}
		port = 10*port + int(c-'0')
	}
	if port > 1<<16-1 {
		return 0, errLinePort
	}
	return uint16(port), nil
}

// AppendV1 appends the line for a TCP connection. If one address is IPv6, both
// are written so; if one is not valid, the line is UNKNOWN.
func AppendV1(dst []byte, source, destination netip.AddrPort) []byte {
	v4, ok := together(source, destination)
	if !ok {
		return append(dst, "PROXY UNKNOWN\r\n"...)
	}
	p := protocols[1]
	if v4 {
		p = protocols[0]
	}
	dst = append(dst, signatureV1...)
	dst = append(dst, p.name...)
	dst = appendAddr(dst, source.Addr(), v4)
	dst = append(dst, ' ')
	dst = appendAddr(dst, destination.Addr(), v4)
	dst = append(dst, ' ')
	dst = strconv.AppendUint(dst, uint64(source.Port()), 10)
	dst = append(dst, ' ')
	dst = strconv.AppendUint(dst, uint64(destination.Port()), 10)
	return append(dst, "\r\n"...)
}

// appendAddr appends an address without its zone.
func appendAddr(dst []byte, a netip.Addr, v4 bool) []byte {
	a = a.Unmap()
	if v4 || a.Is6() {
		return a.WithZone("").AppendTo(dst)
	}
	b := a.As4()
	dst = append(dst, "::ffff:"...)
	dst = strconv.AppendUint(dst, uint64(b[0])<<8|uint64(b[1]), 16)
	dst = append(dst, ':')
	return strconv.AppendUint(dst, uint64(b[2])<<8|uint64(b[3]), 16)
}
