package proxyproto_test

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/tproxyd/tproxyd/internal/proxyproto"
)

// The model is the specification once more: written from its text, for whole
// headers with more bytes behind them than any header has, and without a
// thought for speed.

const (
	octet = `(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])`
	dotQ  = octet + `(?:\.` + octet + `){3}`
	port  = ` (0|[1-9][0-9]{0,4})`
)

var (
	lineTCP4    = regexp.MustCompile(`^PROXY TCP4 (` + dotQ + `) (` + dotQ + `)` + port + port + "\r\n")
	lineTCP6    = regexp.MustCompile(`^PROXY TCP6 ([^ \r\n]+) ([^ \r\n]+)` + port + port + "\r\n")
	lineUnknown = regexp.MustCompile("^PROXY UNKNOWN(?: [^\r\n]*)?\r\n")
	groups      = regexp.MustCompile(`^(?:[0-9a-fA-F]{1,4}(?::[0-9a-fA-F]{1,4})*)?$`)
	endsInV4    = regexp.MustCompile(`:(` + dotQ + `)$`)
)

// model is what the specification makes of the bytes, and why they are illegal.
func model(b []byte) (h proxyproto.Header, n int, why string) {
	switch {
	case bytes.HasPrefix(b, []byte("PROXY ")):
		return modelV1(latin(b[:min(len(b), 107)]))
	case bytes.HasPrefix(b, []byte{0x0d, 0x0a, 0x0d, 0x0a, 0, 0x0d, 0x0a, 0x51, 0x55, 0x49, 0x54, 0x0a}):
		return modelV2(b)
	}
	return h, 0, "signature"
}

// latin makes each byte one character, as regexp knows only characters.
func latin(b []byte) string {
	runes := make([]rune, len(b))
	for i, c := range b {
		runes[i] = rune(c)
	}
	return string(runes)
}

func modelV1(line string) (h proxyproto.Header, n int, why string) {
	h.Version = 1
	if m := lineUnknown.FindString(line); m != "" {
		h.Local = true
		return h, utf8.RuneCountInString(m), ""
	}
	parse := func(s string) (netip.Addr, bool) { a, err := netip.ParseAddr(s); return a, err == nil }
	m := lineTCP4.FindStringSubmatch(line)
	if m == nil {
		m, parse = lineTCP6.FindStringSubmatch(line), modelV6
	}
	if m == nil {
		return h, 0, "line"
	}
	source, ok1 := parse(m[1])
	destination, ok2 := parse(m[2])
	sport, err1 := strconv.ParseUint(m[3], 10, 16)
	dport, err2 := strconv.ParseUint(m[4], 10, 16)
	if !ok1 || !ok2 || err1 != nil || err2 != nil {
		return h, 0, "value"
	}
	h.Source = netip.AddrPortFrom(source, uint16(sport))
	h.Destination = netip.AddrPortFrom(destination, uint16(dport))
	return h, len(m[0]), ""
}

// modelV6 reads RFC 4291, 2.2: eight groups, of which one "::" may stand for
// one or more, and the last two may be IPv4.
func modelV6(s string) (netip.Addr, bool) {
	if m := endsInV4.FindStringSubmatch(s); m != nil {
		v4 := netip.MustParseAddr(m[1]).As4()
		s = strings.TrimSuffix(s, m[1]) + strconv.FormatUint(uint64(v4[0])<<8|uint64(v4[1]), 16) +
			":" + strconv.FormatUint(uint64(v4[2])<<8|uint64(v4[3]), 16)
	}
	left, right, compressed := strings.Cut(s, "::")
	if !groups.MatchString(left) || !groups.MatchString(right) {
		return netip.Addr{}, false
	}
	split := func(s string) []string {
		return strings.FieldsFunc(s, func(r rune) bool { return r == ':' })
	}
	l, r := split(left), split(right)
	missing := 8 - len(l) - len(r)
	if compressed != (missing > 0) || missing < 0 {
		return netip.Addr{}, false
	}
	for range missing {
		l = append(l, "0")
	}
	var a [16]byte
	for i, group := range append(l, r...) {
		v, err := strconv.ParseUint(group, 16, 16)
		if err != nil {
			return netip.Addr{}, false
		}
		binary.BigEndian.PutUint16(a[2*i:], uint16(v))
	}
	return netip.AddrFrom16(a).Unmap(), true
}

func modelV2(b []byte) (h proxyproto.Header, n int, why string) {
	h.Version = 2
	local := b[12] == 0x20
	if !local && b[12] != 0x21 {
		return h, 0, "command"
	}
	block := map[byte]int{0x00: 0, 0x11: 12, 0x12: 12, 0x21: 36, 0x22: 36, 0x31: 216, 0x32: 216}
	size, known := block[b[13]]
	length := int(b[14])*256 + int(b[15])
	n = 16 + length
	switch {
	case !local && !known:
		return h, 0, "family"
	case length > 4096:
		return h, 0, "limit"
	case local || b[13] == 0:
		h.Local = true
		return h, n, ""
	case length < size:
		return h, 0, "length"
	}
	h.Datagram = b[13] == 0x12 || b[13] == 0x22
	half := (size - 4) / 2
	if size == 216 {
		h.Local = true
	} else {
		source, _ := netip.AddrFromSlice(b[16 : 16+half])
		destination, _ := netip.AddrFromSlice(b[16+half : 16+2*half])
		h.Source = netip.AddrPortFrom(source.Unmap(), uint16(b[16+2*half])*256+uint16(b[17+2*half]))
		h.Destination = netip.AddrPortFrom(destination.Unmap(), uint16(b[18+2*half])*256+uint16(b[19+2*half]))
	}
	why = modelTLVs(&h, b[:n], 16+size)
	return h, n, why
}

func modelTLVs(h *proxyproto.Header, header []byte, i int) (why string) {
	first := func(field *[]byte, value []byte) {
		if *field == nil {
			*field = value
		}
	}
	for i < len(header) {
		if i+3 > len(header) || i+3+int(binary.BigEndian.Uint16(header[i+1:])) > len(header) {
			return "frame"
		}
		value := header[i+3 : i+3+int(binary.BigEndian.Uint16(header[i+1:]))]
		switch header[i] {
		case 1:
			first(&h.ALPN, value)
		case 2:
			if utf8.Valid(value) {
				first(&h.Authority, value)
			}
		case 3:
			if len(value) != 4 || h.Checksum {
				return "crc length"
			}
			h.Checksum = true
			zeroed := bytes.Clone(header)
			clear(zeroed[i+3 : i+7])
			if binary.BigEndian.Uint32(value) != slowCRC(zeroed) {
				why = "crc"
			}
		case 5:
			if len(value) > 128 {
				return "unique id"
			}
			first(&h.UniqueID, value)
		}
		i += 3 + len(value)
	}
	return why
}

// slowCRC is the CRC32c of RFC 4960, appendix B, bit by bit.
func slowCRC(b []byte) uint32 {
	sum := ^uint32(0)
	for _, c := range b {
		sum ^= uint32(c)
		for range 8 {
			odd := sum & 1
			sum >>= 1
			if odd == 1 {
				sum ^= 0x82f63b78
			}
		}
	}
	return ^sum
}
