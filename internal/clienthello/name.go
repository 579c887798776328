package clienthello

import (
	"bytes"
	"net/netip"
)

const (
	maxLabel   = 63 // RFC 1035, 2.3.4
	maxLiteral = len("ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255")
)

// setName takes a host name over in lower case. An address is no name.
func (h *Hello) setName(name []byte) error {
	if isAddress(name) {
		return nil
	}
	if len(name) > maxNameLength {
		return errHostName
	}
	label := 0
	for i, c := range name {
		switch {
		case c == '.':
			if label == 0 || label > maxLabel {
				return errHostName
			}
			label = -1
		case 'A' <= c && c <= 'Z':
			c += 'a' - 'A'
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9', c == '-', c == '_':
		default:
			return errHostName
		}
		label++
		h.name[i] = c
	}
	if label == 0 || label > maxLabel {
		return errHostName
	}
	h.nameLength = uint8(len(name))
	return nil
}

// isAddress says whether name is an address as text. Most names show that
// they are none before anything is allocated.
func isAddress(name []byte) bool {
	last := name[len(name)-1]
	if len(name) > maxLiteral || ('0' > last || last > '9') && bytes.IndexByte(name, ':') < 0 {
		return false
	}
	_, err := netip.ParseAddr(string(name))
	return err == nil
}
