package proxyproto_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tproxyd/tproxyd/internal/proxyproto"
)

// filler is what the client says after the header. Longer than any header, it
// leaves no doubt of what one is.
var filler = bytes.Repeat([]byte("GET / HTTP/1.1\r\n"), 1+proxyproto.MaxHeader/16)

var compareAddresses = cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })

// TestSpecification compares with the model, for legal headers and others.
func TestSpecification(t *testing.T) {
	g := newGenerator(1)
	seen := make(map[string]int)
	for range 10000 {
		header := g.legal()
		legal := false
		switch g.IntN(16) {
		case 0, 1, 2, 3:
			legal = true
		case 4:
			header = g.spoiled()
		default:
			header = g.mutate(header)
		}
		stream := slices.Concat(header, filler)
		want, n, why := model(stream)
		if legal && (why != "" || n != len(header)) {
			t.Fatalf("the model finds %q illegal, or %d bytes long: %s", header, n, why)
		}
		seen[why]++
		checkVerdict(t, stream, want, n, why)
	}
	for _, why := range []string{
		"", "signature", "line", "value", "command", "family", "limit", "length", "frame", "unique id", "crc length", "crc",
	} {
		if seen[why] < 3 {
			t.Errorf("only %d headers were %q: the generator has rotted", seen[why], why)
		}
	}
}

// checkVerdict parses the stream at once and by the byte.
func checkVerdict(t *testing.T, stream []byte, want proxyproto.Header, n int, why string) {
	t.Helper()
	got, gotN, err := proxyproto.Parse(stream)
	switch {
	case why != "":
		if err == nil || errors.Is(err, proxyproto.ErrShort) || gotN != 0 {
			t.Fatalf("%q: %+v, %d, %v; want an error: %s", stream[:200], got, gotN, err, why)
		}
		if (why == "signature") != errors.Is(err, proxyproto.ErrNoHeader) {
			t.Fatalf("%q: %v; want it by the reason %s", stream[:200], err, why)
		}
	case err != nil || gotN != n:
		t.Fatalf("%q: %d, %v; want %d", stream[:200], gotN, err, n)
	default:
		if diff := cmp.Diff(want, got, compareAddresses); diff != "" {
			t.Fatalf("%q: -want +got\n%s", stream[:n], diff)
		}
	}
	checkPrefixes(t, stream, n, err)
}

// checkPrefixes holds that prefixes are ErrShort until the verdict is known,
// and that it stays. A legal header has none before its last byte.
func checkPrefixes(t *testing.T, stream []byte, n int, final error) {
	t.Helper()
	decided := false
	for length := range min(len(stream), proxyproto.MaxHeader+2) {
		_, gotN, err := proxyproto.Parse(stream[:length:length])
		switch {
		case final == nil && length < n, !decided && errors.Is(err, proxyproto.ErrShort):
			if !errors.Is(err, proxyproto.ErrShort) || gotN != 0 {
				t.Fatalf("%q: first %d bytes: %v, want ErrShort", stream[:n], length, err)
			}
		case !errors.Is(err, final), final == nil && gotN != n:
			t.Fatalf("%q: first %d bytes: %d, %v; all: %d, %v", stream[:length], length, gotN, err, n, final)
		case decided && length > 300:
			return
		default:
			decided = true
		}
	}
}

// TestRoundTrip reads back what was written.
func TestRoundTrip(t *testing.T) {
	g := newGenerator(2)
	for range 5000 {
		want := g.header()
		b := proxyproto.AppendV2([]byte("before"), &want)
		got, n, err := proxyproto.Parse(b[len("before"):])
		if err != nil || n != len(b)-len("before") {
			t.Fatalf("%q: %d, %v", b, n, err)
		}
		if diff := cmp.Diff(want, got, compareAddresses); diff != "" {
			t.Fatalf("version 2: -want +got\n%s", diff)
		}
		line := proxyproto.AppendV1([]byte("before"), want.Source, want.Destination)
		want = proxyproto.Header{Version: 1, Source: want.Source, Destination: want.Destination}
		if got, n, err = proxyproto.Parse(line[len("before"):]); err != nil || n != len(line)-len("before") {
			t.Fatalf("%q: %d, %v", line, n, err)
		}
		if diff := cmp.Diff(want, got, compareAddresses); diff != "" {
			t.Fatalf("version 1: -want +got\n%s", diff)
		}
	}
}

func TestAppend(t *testing.T) {
	v4, mapped := netip.MustParseAddrPort("198.18.1.2:1"), netip.MustParseAddrPort("[::ffff:198.18.1.2]:1")
	v6, zoned := netip.MustParseAddrPort("[2001:db8::1]:2"), netip.MustParseAddrPort("[fe80::1%eth0]:2")
	for _, c := range []struct {
		name                string
		source, destination netip.AddrPort
		v1                  string
		v2                  string // family and length
	}{
		{"IPv4", v4, v4, "TCP4 198.18.1.2 198.18.1.2 1 1", "\x21\x11\x00\x0c"},
		{"IPv4 in IPv6", mapped, mapped, "TCP4 198.18.1.2 198.18.1.2 1 1", "\x21\x11\x00\x0c"},
		{"mixed", v4, v6, "TCP6 ::ffff:c612:102 2001:db8::1 1 2", "\x21\x21\x00\x24"},
		{"mixed the other way", v6, mapped, "TCP6 2001:db8::1 ::ffff:c612:102 2 1", "\x21\x21\x00\x24"},
		{"with a zone", zoned, v6, "TCP6 fe80::1 2001:db8::1 2 2", "\x21\x21\x00\x24"},
		{"no source", netip.AddrPort{}, v6, "UNKNOWN", "\x20\x00\x00\x00"},
		{"no destination", v4, netip.AddrPort{}, "UNKNOWN", "\x20\x00\x00\x00"},
	} {
		if got, want := string(proxyproto.AppendV1(nil, c.source, c.destination)), "PROXY "+c.v1+"\r\n"; got != want {
			t.Errorf("%s: got %q, want %q", c.name, got, want)
		}
		got := proxyproto.AppendV2(nil, &proxyproto.Header{Source: c.source, Destination: c.destination})
		if string(got[12:16]) != c.v2 {
			t.Errorf("%s: got %q, want %q after the signature", c.name, got, c.v2)
		}
	}
	local := proxyproto.AppendV2(nil, &proxyproto.Header{Local: true, Source: v4, Destination: v4, ALPN: []byte("h2")})
	if want := "\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00"; string(local) != want {
		t.Errorf("local: got %q, want %q", local, want)
	}
}

// TestAppendBounds leaves out what may not be sent or would not be read.
func TestAppendBounds(t *testing.T) {
	v6 := netip.MustParseAddrPort("[2001:db8::1]:2")
	room := 4096 - 36 - 7 - 3 // for one value beside the checksum
	for _, c := range []struct {
		name             string
		authority, id    int
		wantName, wantID bool
	}{
		{"longest id", 10, proxyproto.MaxUniqueID, true, true},
		{"id too long", 10, proxyproto.MaxUniqueID + 1, true, false},
		{"longest name", room, 0, true, false},
		{"name too long", room + 1, 0, false, true},
		{"far too long", 1 << 17, 1, false, true},
	} {
		b := proxyproto.AppendV2(nil, &proxyproto.Header{
			Source: v6, Destination: v6, Checksum: true,
			Authority: bytes.Repeat([]byte("n"), c.authority), UniqueID: bytes.Repeat([]byte("i"), c.id),
		})
		h, n, err := proxyproto.Parse(b)
		if err != nil || n != len(b) || n > proxyproto.MaxHeader {
			t.Errorf("%s: %d of %d bytes, %v", c.name, n, len(b), err)
		}
		if (h.Authority != nil) != c.wantName || (h.UniqueID != nil) != c.wantID {
			t.Errorf("%s: name of %d bytes, id of %d", c.name, len(h.Authority), len(h.UniqueID))
		}
	}
}

// TestHAProxy reads what HAProxy 2.6 sent, recorded with send-proxy and with
// send-proxy-v2 proxy-v2-options crc32c,unique-id. The checksum is its own.
func TestHAProxy(t *testing.T) {
	for _, c := range []struct {
		header string
		want   proxyproto.Header
	}{
		{"PROXY TCP6 ::1 ::1 56436 9001\r\n", proxyproto.Header{
			Version: 1, Source: netip.MustParseAddrPort("[::1]:56436"), Destination: netip.MustParseAddrPort("[::1]:9001"),
		}},
		{"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x2d\x7f\x00\x00\x01\x7f\x00\x00\x01\xb4\xe6\x23\x2a" +
			"\x03\x00\x04\x79\x01\xb5\xd7\x05\x00\x17tproxyd-127.0.0.1-46310", proxyproto.Header{
			Version: 2, Source: netip.MustParseAddrPort("127.0.0.1:46310"), Destination: netip.MustParseAddrPort("127.0.0.1:9002"),
			Checksum: true, UniqueID: []byte("tproxyd-127.0.0.1-46310"),
		}},
	} {
		got, n, err := proxyproto.Parse([]byte(c.header + "hello"))
		if err != nil || n != len(c.header) {
			t.Errorf("%q: %d, %v; want %d", c.header, n, err, len(c.header))
		}
		if diff := cmp.Diff(c.want, got, compareAddresses); diff != "" {
			t.Errorf("%q: -want +got\n%s", c.header, diff)
		}
	}
}

// TestEarly names the byte that a refusal must not wait beyond.
func TestEarly(t *testing.T) {
	v2 := "\r\n\r\n\x00\r\nQUIT\n"
	for _, refused := range []string{
		"G", "\x16", "\r\r", "PROXY\t", "PROXY T ", "PROXY TCP5", "PROXY UNKNOWNx", "PROXY UNKNOWN \n", "PROXY UNKNOWN \rx",
		"PROXY TCP4 g", "PROXY TCP4 1\n", "PROXY TCP6 %", "PROXY TCP4 " + strings.Repeat("1", 45),
		"PROXY TCP6 " + strings.Repeat("1", 93), "PROXY UNKNOWN " + strings.Repeat("x", 93),
		"PROXY TCP4 " + strings.Repeat("1", 44) + "\r",
		v2 + "\x11", v2 + "\x22", v2 + "\x21\x13", v2 + "\x21\x10", v2 + "\x21\x11\x00\x0b", v2 + "\x21\x11\x10\x01", v2 + "\x20\x00\x10\x01",
	} {
		if _, _, err := proxyproto.Parse([]byte(refused)); err == nil || errors.Is(err, proxyproto.ErrShort) {
			t.Errorf("%q: %v", refused, err)
		}
		if _, _, err := proxyproto.Parse([]byte(refused[:len(refused)-1])); !errors.Is(err, proxyproto.ErrShort) {
			t.Errorf("%q without its last byte: %v, want ErrShort", refused, err)
		}
	}
}

// TestRules has for each bound a header that just keeps it, and one that just
// does not.
func TestRules(t *testing.T) {
	line := func(s string) []byte { return []byte("PROXY " + s + "\r\n") }
	g := newGenerator(8)
	block := func(family byte, length int, tlvs string) []byte {
		return g.block(0x21, family, append(make([]byte, length), tlvs...))
	}
	twice := block(0x11, 12, "\x03\x00\x04abcd\x03\x00\x04\x00\x00\x00\x00")
	binary.BigEndian.PutUint32(twice[len(twice)-4:], slowCRC(twice))
	once := block(0x11, 12, "\x04\x00\x04abcd\x03\x00\x04\x00\x00\x00\x00")
	binary.BigEndian.PutUint32(once[len(once)-4:], slowCRC(once))
	id := "\x05\x00\x80" + strings.Repeat("i", 128)
	for _, c := range []struct {
		rule        string
		kept, broke []byte
	}{
		{"port", line("TCP4 1.1.1.1 2.2.2.2 65535 0"), line("TCP4 1.1.1.1 2.2.2.2 65536 0")},
		{"other port", line("TCP4 1.1.1.1 2.2.2.2 0 65535"), line("TCP4 1.1.1.1 2.2.2.2 0 65536")},
		{"no leading zero", line("TCP4 1.1.1.1 2.2.2.2 0 0"), line("TCP4 1.1.1.1 2.2.2.2 00 0")},
		{"octet", line("TCP4 1.1.1.255 2.2.2.2 1 2"), line("TCP4 1.1.1.256 2.2.2.2 1 2")},
		{"octet without leading zero", line("TCP4 1.1.1.0 2.2.2.2 1 2"), line("TCP4 1.1.1.00 2.2.2.2 1 2")},
		{"one space", line("TCP4 1.1.1.1 2.2.2.2 1 2"), line("TCP4 1.1.1.1  2.2.2.2 1 2")},
		{"no space at the end", line("TCP4 1.1.1.1 2.2.2.2 1 2"), line("TCP4 1.1.1.1 2.2.2.2 1 2 ")},
		{"family", line("TCP6 ::1 ::2 1 2"), line("TCP4 ::1 ::2 1 2")},
		{"one family", line("TCP6 ::1 ::2 1 2"), line("TCP6 ::1 2.2.2.2 1 2")},
		{"one double colon", line("TCP6 1::2 ::2 1 2"), line("TCP6 1::2::3 ::2 1 2")},
		{"eight groups", line("TCP6 1:2:3:4:5:6:7:8 ::2 1 2"), line("TCP6 1:2:3:4:5:6:7:8:9 ::2 1 2")},
		{"upper case", line("TCP4 1.1.1.1 2.2.2.2 1 2"), line("tcp4 1.1.1.1 2.2.2.2 1 2")},
		{"length of IPv4", block(0x11, 12, ""), block(0x11, 11, "")},
		{"length of IPv6", block(0x22, 36, ""), block(0x22, 35, "")},
		{"length of AF_UNIX", block(0x31, 216, ""), block(0x31, 215, "")},
		{"length", block(0x00, 4096, ""), block(0x00, 4097, "")},
		{"one CRC32c", once, twice},
		{"unique id", block(0x12, 12, id), block(0x12, 12, id[:2]+"\x81i"+id[3:])},
		{"TLV", block(0x21, 36, "\x04\x00\x01x"), block(0x21, 36, "\x04\x00\x02x")},
		{"TLV header", block(0x21, 36, "\x04\x00\x00"), block(0x21, 36, "\x04\x00")},
	} {
		if _, n, err := proxyproto.Parse(c.kept); err != nil || n != len(c.kept) {
			t.Errorf("%s: %q: %d, %v", c.rule, c.kept, n, err)
		}
		if _, _, err := proxyproto.Parse(c.broke); err == nil || errors.Is(err, proxyproto.ErrShort) {
			t.Errorf("%s: %q: %v", c.rule, c.broke, err)
		}
	}
}
