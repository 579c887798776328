package proxyproto_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"

	"github.com/tproxyd/tproxyd/internal/proxyproto"
)

// generator makes headers, the same for each seed.
type generator struct{ *rand.Rand }

func newGenerator(seed uint64) generator { return generator{rand.New(rand.NewPCG(seed, 30))} }

func pick[T any](g generator, choices ...T) T { return choices[g.IntN(len(choices))] }

func (g generator) bytes(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(g.Uint32())
	}
	return b
}

func (g generator) v4() netip.Addr { return netip.AddrFrom4([4]byte(g.bytes(4))) }

// v6 is an address with runs of zeroes, sometimes IPv4 in IPv6.
func (g generator) v6() netip.Addr {
	b := [16]byte(g.bytes(16))
	if from := g.IntN(20); from < 16 {
		clear(b[from:min(16, from+g.IntN(12))])
	}
	if g.IntN(8) == 0 {
		b = g.v4().As16()
	}
	return netip.AddrFrom16(b)
}

func (g generator) port() uint16 { return pick[uint16](g, 0, 1, 9, 10, 443, 65535, uint16(g.Uint32())) }

// header is one that can be written and read back.
func (g generator) header() proxyproto.Header {
	address := pick(g, g.v4, g.v6)
	h := proxyproto.Header{
		Version:     2,
		Datagram:    g.IntN(2) == 0,
		Checksum:    g.IntN(2) == 0,
		Source:      netip.AddrPortFrom(address().Unmap(), g.port()),
		Destination: netip.AddrPortFrom(pick(g, address, g.v4)().Unmap(), g.port()),
	}
	if g.IntN(2) == 0 {
		h.ALPN = []byte(pick(g, "h2", "http/1.1", "", strings.Repeat("p", 255)))
	}
	if g.IntN(2) == 0 {
		h.Authority = []byte(pick(g, "www.example.org", "é.example", "", strings.Repeat("n", 255)))
	}
	if g.IntN(2) == 0 {
		h.UniqueID = g.bytes(pick(g, 0, 1, 16, proxyproto.MaxUniqueID))
	}
	return h
}

// legal is a legal header of any kind, not only of those that we write.
func (g generator) legal() []byte {
	switch g.IntN(8) {
	case 0:
		return []byte("PROXY UNKNOWN" + pick(g, "", " ", " TCP4 x", " "+strings.Repeat("f", 91), " \x00\xff ") + "\r\n")
	case 1:
		return fmt.Appendf(nil, "PROXY TCP4 %v %v %d %d\r\n", g.v4(), g.v4(), g.port(), g.port())
	case 2:
		form := pick(g, netip.Addr.String, netip.Addr.StringExpanded,
			func(a netip.Addr) string { return strings.ToUpper(a.String()) })
		return fmt.Appendf(nil, "PROXY TCP6 %s %s %d %d\r\n", form(g.v6()), form(g.v6()), g.port(), g.port())
	case 3:
		h := g.header()
		return proxyproto.AppendV1(nil, h.Source, h.Destination)
	case 4:
		return g.block(0x20, byte(g.Uint32()), g.bytes(pick(g, 0, 1, 12, 36, 216, 300, 4096)))
	case 5:
		return g.block(0x21, 0x00, g.bytes(pick(g, 0, 1, 12, 300)))
	case 6:
		h := g.header()
		return proxyproto.AppendV2(nil, &h)
	}
	family := pick[byte](g, 0x11, 0x12, 0x21, 0x22, 0x31, 0x32)
	size := map[byte]int{0x10: 12, 0x20: 36, 0x30: 216}[family&0xf0]
	return g.block(0x21, family, append(g.bytes(size), g.tlvs()...))
}

// block is a header of version 2 with what follows its fixed part.
func (g generator) block(command, family byte, block []byte) []byte {
	b := append([]byte("\r\n\r\n\x00\r\nQUIT\n"), command, family)
	b = binary.BigEndian.AppendUint16(b, uint16(len(block)))
	return append(b, block...)
}

// tlvs are some of any type but CRC32C, which only AppendV2 gets right.
func (g generator) tlvs() (b []byte) {
	for range g.IntN(4) {
		kind := pick[byte](g, 0x01, 0x02, 0x04, 0x05, 0x20, 0x30, 0xe0, 0xff, byte(g.Uint32()))
		if kind == 0x03 {
			kind = 0x04
		}
		value := g.bytes(pick(g, 0, 1, 3, 128))
		b = append(b, kind)
		b = binary.BigEndian.AppendUint16(b, uint16(len(value)))
		b = append(b, value...)
	}
	return b
}

// spoiled has a TLV that is not legal by itself.
func (g generator) spoiled() []byte {
	tlv := pick(g, "\x05\x00\x81"+strings.Repeat("i", 129), "\x03\x00\x03abc", "\x03\x00\x05abcde",
		"\x03\x00\x04abcd\x03\x00\x04abcd", "\x03\x00\x04abcd", "\x04\x00", "\x04\x00\x02a")
	return g.block(0x21, 0x11, append(g.bytes(12), append(g.tlvs(), tlv...)...))
}

// mutate changes a header in one to three places, mostly to what a parser might
// take for something else.
func (g generator) mutate(b []byte) []byte {
	b = bytes.Clone(b)
	for range 1 + g.IntN(3) {
		at := g.IntN(len(b))
		if g.IntN(3) == 0 { // where the fixed fields are
			at = g.IntN(min(len(b), 20))
		}
		switch g.IntN(6) {
		case 0:
			b[at] = byte(g.Uint32())
		case 1:
			b[at] ^= 1 << g.IntN(8)
		case 2:
			b = slices.Insert(b, at, b[at])
		case 3:
			b = slices.Delete(b, at, at+1)
			b = append(b, 'x')
		case 4:
			b = slices.Insert(b, at, []byte(pick(g, " ", "0", "\r", "\n", "\r\n", ":", "::", ".", "+", "%e", "a", "\x00"))...)
		case 5:
			if i := bytes.IndexByte(b, ' '); i > 0 {
				fields := bytes.SplitN(b, []byte(" "), 6)
				i, j := g.IntN(len(fields)), g.IntN(len(fields))
				fields[i], fields[j] = fields[j], fields[i]
				b = bytes.Join(fields, []byte(" "))
			} else if len(b) > 16 {
				b[15] += byte(g.IntN(7)) - 3
			}
		}
	}
	return b
}
