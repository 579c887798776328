package clienthello_test

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"strings"
)

// message is a ClientHello in its parts.
type message struct {
	version    uint16
	session    []byte
	suites     []byte
	methods    []byte
	extensions []extension // nil: not even a length
}

type extension struct {
	kind uint16
	data []byte
}

// vector is data after its length in n bytes.
func vector(n int, data ...[]byte) []byte {
	joined := slices.Concat(data...)
	length := binary.BigEndian.AppendUint64(nil, uint64(len(joined)))
	return append(length[8-n:], joined...)
}

// bytes is the handshake message.
func (m message) bytes() []byte {
	body := binary.BigEndian.AppendUint16(nil, m.version)
	body = append(body, bytes.Repeat([]byte{7}, 32)...)
	body = slices.Concat(body, vector(1, m.session), vector(2, m.suites), vector(1, m.methods))
	if m.extensions != nil {
		var all []byte
		for _, e := range m.extensions {
			all = binary.BigEndian.AppendUint16(all, e.kind)
			all = append(all, vector(2, e.data)...)
		}
		body = append(body, vector(2, all)...)
	}
	return append([]byte{1}, vector(3, body)...)
}

// inRecords cuts a message into records of the sizes, the last of which
// repeats.
func inRecords(message []byte, sizes ...int) (stream []byte) {
	for len(message) > 0 {
		n := min(sizes[0], len(message))
		stream = append(stream, 22, 3, 1)
		stream = append(stream, vector(2, message[:n])...)
		message = message[n:]
		if len(sizes) > 1 {
			sizes = sizes[1:]
		}
	}
	return stream
}

// unrecord is the message in a stream of records, and what was behind it.
func unrecord(stream []byte) (message, behind []byte) {
	for len(message) < 4 || len(message) < 4+int(message[1])<<16+int(message[2])<<8+int(message[3]) {
		n := int(binary.BigEndian.Uint16(stream[3:]))
		message = append(message, stream[5:5+n]...)
		stream = stream[5+n:]
	}
	return message, stream
}

// dissect takes a well-formed message apart.
func dissect(b []byte) (m message) {
	next := func(n int) (field []byte) { field, b = b[:n], b[n:]; return field }
	list := func(n int) []byte {
		var length [8]byte
		copy(length[8-n:], next(n))
		return next(int(binary.BigEndian.Uint64(length[:])))
	}
	next(4)
	m.version = binary.BigEndian.Uint16(next(2))
	next(32)
	m.session, m.suites, m.methods = list(1), list(2), list(1)
	if len(b) == 0 {
		return m
	}
	m.extensions = []extension{}
	b = list(2)
	for len(b) > 0 {
		m.extensions = append(m.extensions, extension{binary.BigEndian.Uint16(next(2)), list(2)})
	}
	return m
}

// serverName is the extension with names of type host_name.
func serverName(names ...string) extension {
	var list []byte
	for _, n := range names {
		list = append(append(list, 0), vector(2, []byte(n))...)
	}
	return extension{0, vector(2, list)}
}

func alpn(names ...string) extension {
	var list []byte
	for _, n := range names {
		list = append(list, vector(1, []byte(n))...)
	}
	return extension{16, vector(2, list)}
}

// generator makes messages, the same for each seed.
type generator struct{ *rand.Rand }

func newGenerator(seed uint64) generator { return generator{rand.New(rand.NewPCG(seed, 29))} }

func pick[T any](g generator, choices ...T) T { return choices[g.IntN(len(choices))] }

func (g generator) noise(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(g.Uint32())
	}
	return b
}

// message is a legal one, for crypto/tls too.
func (g generator) message() message {
	m := message{
		version: pick[uint16](g, 0x0301, 0x0302, 0x0303),
		session: g.noise(pick(g, 0, 1, 32)),
		suites:  g.noise(2 * pick(g, 1, 3, 20)),
		methods: pick(g, []byte{0}, []byte{1, 0}),
	}
	if g.IntN(20) == 0 {
		return m
	}
	m.extensions = []extension{}
	optional := []extension{
		{0x0a0a + 0x1010*uint16(g.IntN(16)), g.noise(g.IntN(2))}, // GREASE (RFC 8701)
		{21, make([]byte, pick(g, 0, 1, 200, 200, 15000))},       // padding (RFC 7685)
		{43, vector(1, []byte{3, 4, 3, 3})},                      // supported_versions
		{51, vector(2, []byte{0x11, 0xec}, vector(2, g.noise(1216)))},
		{23, nil},
		{0x4469, g.noise(30)},
	}
	switch g.IntN(8) {
	case 0:
	case 1:
		optional = append(optional, serverName(pick(g, "198.18.1.2", "2001:db8::1", "::", "::ffff:198.18.1.2")))
	case 2: // a name of a type that nobody knows, too
		optional = append(optional, extension{0, vector(2, []byte{9, 0, 1, 'x'}, serverName("type.example.org").data[2:])})
	default:
		label := strings.Repeat("n", 63)
		optional = append(optional, serverName(pick(g, "www.example.org", "API.Example.ORG", "a", "x_y.example.org", "1.2.3",
			"xn--e1afmkfd.example.org", strings.Join([]string{label, label, label, label[:61]}, "."), "256.1.1.1", "a--b.-c.d-")))
	}
	if g.IntN(3) > 0 {
		optional = append(optional, alpn(pick(g, []string{"h2", "http/1.1"}, []string{"\x0a\x0a", "h3"},
			[]string{"x"}, []string{strings.Repeat("p", 255)})...))
	}
	g.Shuffle(len(optional), func(i, j int) { optional[i], optional[j] = optional[j], optional[i] })
	for _, e := range optional {
		if e.kind == 0 || e.kind == 16 || g.IntN(2) == 0 {
			m.extensions = append(m.extensions, e)
		}
	}
	if g.IntN(4) == 0 { // pre_shared_key
		m.extensions = append(m.extensions, extension{41, slices.Concat(
			vector(2, vector(2, g.noise(120)), g.noise(4)), vector(2, vector(1, g.noise(32))))})
	}
	return m
}

// spoil makes a part illegal, mostly.
func (g generator) spoil(m message) message {
	m.extensions = slices.Clone(m.extensions)
	if m.extensions == nil {
		m.extensions = []extension{serverName("www.example.org")}
	}
	at := g.IntN(len(m.extensions) + 1)
	add := func(e extension) { m.extensions = slices.Insert(m.extensions, at, e) }
	drop := func(kind uint16) {
		m.extensions = slices.DeleteFunc(m.extensions, func(e extension) bool { return e.kind == kind })
		at = min(at, len(m.extensions))
	}
	switch g.IntN(9) {
	case 0:
		m.version = pick[uint16](g, 0, 2, 0x0300, 0x0304, 0x0400)
	case 1:
		m.session = g.noise(33 + g.IntN(200))
	case 2:
		m.suites = g.noise(pick(g, 0, 1, 3))
	case 3:
		m.methods = pick(g, nil, []byte{1}, []byte{1, 2})
	case 4:
		add(pick(g, m.extensions[g.IntN(len(m.extensions)):]...))
	case 5:
		drop(0)
		add(pick(g, serverName("a.b", "c.d"), serverName(), serverName(""), extension{0, nil},
			extension{0, append(serverName("a.b").data, 0)}, extension{0, vector(2, []byte{9, 0, 1, 'x', 9, 0, 1, 'y'})},
			extension{0, vector(2, []byte{0, 0, 3, 'x'})}, extension{0, vector(2, []byte{0})}))
	case 6:
		label := strings.Repeat("n", 63)
		drop(0)
		add(serverName(pick(g, "a.b.", ".", "a..b", ".a", "a b", "a\x00.b", "é.example", "a:1", "[2001:db8::1]", "*.a", label+"n.a", "a."+label+"n",
			strings.Join([]string{label, label, label, label}, "."), strings.Repeat("a.", 127)+"a")))
	case 7:
		drop(16)
		add(pick(g, alpn(), alpn(""), alpn("h2", ""), extension{16, nil}, extension{16, append(alpn("h2").data, 1)},
			extension{16, vector(2, []byte{5, 'h', '2'})}))
	case 8:
		drop(41)
		m.extensions = slices.Insert(m.extensions, 0, extension{41, g.noise(40)})
	}
	return m
}

// mutate changes bytes of a stream, with a liking for its head.
func (g generator) mutate(b []byte) []byte {
	b = bytes.Clone(b)
	for range 1 + g.IntN(3) {
		at := g.IntN(len(b))
		if g.IntN(2) == 0 {
			at = g.IntN(min(len(b), 120))
		}
		switch g.IntN(4) {
		case 0:
			b[at] = byte(g.Uint32())
		case 1:
			b[at] += byte(g.IntN(5)) - 2
		case 2:
			b = slices.Insert(b, at, byte(g.IntN(4)))
		case 3:
			b = slices.Delete(b, at, at+1)
		}
	}
	return b
}
