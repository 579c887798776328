package clienthello_test

import (
	"bytes"
	"errors"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/tproxyd/tproxyd/internal/clienthello"
)

// TestOracle compares with the server of crypto/tls. For what both find legal,
// name and protocols are the same. We are laxer only in what other extensions
// contain, and stricter only where stricter says why.
func TestOracle(t *testing.T) {
	g := newGenerator(1)
	counts := make(map[string]int)
	for i := range 9000 {
		m := g.message()
		if i%3 == 1 {
			m = g.spoil(m)
		}
		message := m.bytes()
		if i%3 == 1 && g.IntN(20) == 0 {
			message = append(message, 0)
		}
		stream := inRecords(message, pick(g, [][]int{{1 << 14}, {1 << 14}, {1, 2, 3, 1 << 14}, {100}, {3, 500}, {1 + g.IntN(600)}}...)...)
		if i%3 == 2 {
			stream = g.mutate(stream)
		}
		if g.IntN(20) == 0 {
			stream = append(stream, "\x14\x03\x03\x00\x01\x01"...) // before early data
		}
		class := compare(t, stream)
		if i%3 == 0 && class != "legal" {
			t.Fatalf("%q is legal, and %s", stream, class)
		}
		counts[class]++
	}
	for _, class := range []string{
		"legal", "refused", "laxer", "stricter: version", "stricter: session id", "stricter: cipher suites",
		"stricter: compression methods", "stricter: server name is no host name", "stricter: server_name is no list",
		"stricter: record goes on", "stricter: unknown version", "stricter: no TLS handshake",
	} {
		if counts[class] == 0 {
			t.Errorf("no hello was %s: has the generator rotted?", class)
		}
	}
	t.Log(counts)
}

// compare holds one stream against the oracle and says what came out.
func compare(t *testing.T, stream []byte) string {
	t.Helper()
	want := judge(stream)
	h, err := clienthello.Parse(stream)
	switch {
	case err == nil && want.Legal:
		checkHello(t, &h, want, stream)
		return "legal"
	case err == nil:
		message, _ := unrecord(stream)
		m := dissect(message)
		m.extensions = slices.DeleteFunc(m.extensions, func(e extension) bool { return e.kind != 0 && e.kind != 16 })
		if want = judge(inRecords(m.bytes(), 1<<14)); !want.Legal {
			t.Fatalf("%q: accepted, and crypto/tls refuses it even without the other extensions", stream)
		}
		checkHello(t, &h, want, stream)
		return "laxer"
	case want.Legal:
		return "stricter: " + stricter(t, stream, want, err)
	}
	return "refused"
}

func checkHello(t *testing.T, h *clienthello.Hello, want verdict, stream []byte) {
	t.Helper()
	name := strings.ToLower(want.Name)
	if _, err := netip.ParseAddr(name); err == nil {
		name = ""
	}
	if got := string(h.ServerName()); got != name {
		t.Fatalf("%q: name %q, want %q", stream, got, name)
	}
	var got []string
	for p := range h.Protocols {
		got = append(got, string(p))
	}
	if !slices.Equal(got, want.Protocols) {
		t.Fatalf("%q: protocols %q, want %q", stream, got, want.Protocols)
	}
}

var hostName = regexp.MustCompile(`^[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*$`)

// stricter checks the reason for which a hello that crypto/tls takes is
// refused, and returns it.
func stricter(t *testing.T, stream []byte, want verdict, err error) string {
	t.Helper()
	message, behind := unrecord(stream)
	m := dissect(message[:4+int(message[1])<<16+int(message[2])<<8+int(message[3])])
	versions := func(bad func(byte) bool) bool {
		for rest := stream[:len(stream)-len(behind)]; len(rest) > 0; rest = rest[5+int(rest[3])<<8+int(rest[4]):] {
			if rest[1] != 3 || bad(rest[2]) {
				return true
			}
		}
		return false
	}
	unknown := func(v byte) bool { return v < 1 || v > 3 }
	twoOfAType := func() bool {
		return slices.ContainsFunc(m.extensions, func(e extension) bool {
			return e.kind == 0 && bytes.Count(e.data, []byte{9, 0, 1}) == 2
		})
	}
	for reason, holds := range map[string]func() bool{
		"version is SSL 3":                 func() bool { return m.version <= 0x0300 },
		"session id":                       func() bool { return len(m.session) > 32 },
		"cipher suites":                    func() bool { return len(m.suites) == 0 },
		"compression methods":              func() bool { return !bytes.Contains(m.methods, []byte{0}) },
		"server name is no host name":      func() bool { return !hostName.MatchString(want.Name) || len(want.Name) > 253 },
		"server_name is no list":           twoOfAType,
		"record goes on":                   func() bool { return len(message) > 4+int(message[1])<<16+int(message[2])<<8+int(message[3]) },
		"unknown version":                  func() bool { return versions(unknown) },
		"no TLS handshake":                 func() bool { return stream[0] != 22 || stream[1] != 3 || unknown(stream[2]) },
		"interrupted by a record":          func() bool { return bytes.Contains(stream, []byte{21, 3}) },
		"TLS record is longer than 16384":  func() bool { return false },
		"TLS handshake record is empty":    func() bool { return false },
		"pre_shared_key is not the last":   func() bool { return false },
		"an extension is there twice":      func() bool { return false },
		"ALPN is no list":                  func() bool { return false },
		"a length does not fit":            func() bool { return false },
		"first TLS handshake message is n": func() bool { return false },
	} {
		if strings.Contains(err.Error(), reason) {
			if !holds() {
				t.Fatalf("%q: refused for %q, which crypto/tls does not find", stream, err)
			}
			return strings.TrimSuffix(reason, " is SSL 3")
		}
	}
	if errors.Is(err, clienthello.ErrShort) {
		t.Fatalf("%q: short, and crypto/tls has read it", stream)
	}
	t.Fatalf("%q: refused for %q, which is no known reason", stream, err)
	return ""
}

// FuzzParse compares any bytes with crypto/tls, and holds that the verdict
// depends on the bytes alone.
func FuzzParse(f *testing.F) {
	f.Fuzz(func(t *testing.T, b []byte) {
		compare(t, b)
		checkPieces(t, b)
	})
}
