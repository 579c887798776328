package clienthello_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/tproxyd/tproxyd/internal/clienthello"
)

// TestRules has for each rule a hello that just keeps it, and one that just
// does not. Here the specification judges: crypto/tls is laxer in some, and
// in others it cannot tell why it refuses.
func TestRules(t *testing.T) {
	label := strings.Repeat("n", 63)
	name := func(s string) func(*message) { return func(m *message) { m.extensions = []extension{serverName(s)} } }
	extensions := func(e ...extension) func(*message) { return func(m *message) { m.extensions = e } }
	session := func(n int) func(*message) { return func(m *message) { m.session = make([]byte, n) } }
	version := func(v uint16) func(*message) { return func(m *message) { m.version = v } }
	suites := func(n int) func(*message) { return func(m *message) { m.suites = make([]byte, n) } }
	methods := func(b ...byte) func(*message) { return func(m *message) { m.methods = b } }
	key, other := extension{41, []byte{1}}, extension{21, nil}
	typed := func(types ...byte) extension {
		var list []byte
		for _, c := range types {
			list = append(list, c, 0, 1, 'x')
		}
		return extension{0, vector(2, list)}
	}
	for _, c := range []struct {
		rule        string
		kept, broke func(*message)
	}{
		{"version", version(0x0301), version(0x0300)},
		{"session id", session(32), session(33)},
		{"cipher suites: some", suites(2), suites(0)},
		{"cipher suites: even", suites(4), suites(3)},
		{"compression methods: null", methods(1, 0), methods(1)},
		{"compression methods: some", methods(0), methods()},
		{"no extension twice", extensions(other, key), extensions(other, other)},
		{"pre_shared_key last", extensions(other, key), extensions(key, other)},
		{"label at most", name(label + "." + label), name(label + "." + label + "n")},
		{"label at most, not last", name(label + ".n"), name(label + "n.n")},
		{"name at most", name(strings.Repeat("a.", 126) + "a"), name(strings.Repeat("a.", 126) + "aa")},
		{"label not empty", name("a.b"), name("a..b")},
		{"no dot at the end", name("a.b"), name("a.b.")},
		{"no dot at the start", name("a.b"), name(".a.b")},
		{"letters only", name("a-b_9.z"), name("a/b")},
		{"no byte above", name("z"), name("{")},
		{"one name of a type", extensions(typed(0, 9)), extensions(typed(0, 0))},
		{"one name of another type", extensions(typed(9, 8, 0)), extensions(typed(9, 8, 9))},
		{"names not empty", name("a"), name("")},
		{"name list not empty", extensions(typed(9)), extensions(typed())},
		{"name list alone", extensions(typed(0)), extensions(extension{0, append(typed(0).data, 0)})},
		{"ALPN not empty", extensions(alpn("x")), extensions(alpn())},
		{"ALPN names not empty", extensions(alpn("x", "y")), extensions(alpn("x", ""))},
		{"ALPN alone", extensions(alpn("x")), extensions(extension{16, append(alpn("x").data, 0)})},
	} {
		for _, half := range []struct {
			change func(*message)
			legal  bool
		}{{c.kept, true}, {c.broke, false}} {
			m := message{version: 0x0303, suites: []byte{0x13, 1}, methods: []byte{0}, extensions: []extension{}}
			half.change(&m)
			_, err := clienthello.Parse(inRecords(m.bytes(), 1<<14))
			if half.legal != (err == nil) || errors.Is(err, clienthello.ErrShort) {
				t.Errorf("%s: legal %v, got %v", c.rule, half.legal, err)
			}
		}
	}
}

// TestLengths moves each length of a message by one, and adds a byte to the
// end: none of it fits any more.
func TestLengths(t *testing.T) {
	whole := message{
		version: 0x0303, session: []byte("session"), suites: []byte{0x13, 1}, methods: []byte{0},
		extensions: []extension{serverName("www.example.org"), alpn("h2")},
	}.bytes()
	refuse := func(what string, message []byte) {
		if _, err := clienthello.Parse(inRecords(message, 1<<14)); err == nil || errors.Is(err, clienthello.ErrShort) {
			t.Errorf("%s: %v", what, err)
		}
	}
	// Where the last byte is of the lengths of: session id, suites, methods,
	// extensions, server_name with its list and name, ALPN with its list and name.
	const first = 4 + 2 + 32
	for _, at := range []int{
		first, first + 9, first + 12, first + 15, first + 19, first + 21, first + 24, first + 43, first + 45, first + 46,
	} {
		for _, by := range []byte{1, 0xff} {
			changed := slices.Clone(whole)
			changed[at] += by
			refuse("a length changed", changed)
		}
	}
	longer := append(slices.Clone(whole), 0)
	longer[3]++
	refuse("a byte after the extensions", longer)
	for n := 4; n < len(whole); n++ { // whole as a message, but cut short inside
		cut := slices.Clone(whole[:n])
		cut[2], cut[3] = byte((n-4)>>8), byte(n-4)
		if n == first+14 {
			continue // that is a hello without extensions
		}
		refuse("cut short", cut)
	}
}
