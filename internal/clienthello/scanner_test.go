package clienthello_test

import (
	"bytes"
	"errors"
	"testing"

	"github.com/tproxyd/tproxyd/internal/clienthello"
)

// checkPieces gives a stream to a Scanner byte by byte, and holds that it
// agrees at each length with one that sees these bytes for the first time, that
// the verdict does not change once there is one, and that Need is right. It
// returns the length of the verdict.
func checkPieces(t *testing.T, stream []byte) (decided int) {
	t.Helper()
	var s clienthello.Scanner
	_, final := clienthello.Parse(stream)
	for n := range len(stream) + 1 {
		need := s.Need()
		_, err := s.Parse(stream[:n:n], 0)
		if _, fresh := clienthello.Parse(stream[:n:n]); !errors.Is(err, fresh) {
			t.Fatalf("%q: first %d bytes: %v, and %v at once", stream, n, err, fresh)
		}
		if errors.Is(err, clienthello.ErrShort) {
			if s.Need() <= n {
				t.Fatalf("%q: first %d bytes: needs %d", stream, n, s.Need())
			}
			continue
		}
		if n < need || !errors.Is(err, final) {
			t.Fatalf("%q: first %d bytes, of which %d are needed: %v; all: %v", stream, n, need, err, final)
		}
		return n
	}
	return len(stream)
}

// TestPieces cuts legal hellos into records and segments in all ways that
// matter. None is accepted before its last byte.
func TestPieces(t *testing.T) {
	g := newGenerator(2)
	message := message{
		version: 0x0303, session: g.noise(32), suites: g.noise(30), methods: []byte{0},
		extensions: []extension{{0x1a1a, nil}, serverName("www.example.org"), alpn("h2"), {21, make([]byte, 100)}},
	}.bytes()
	for first := 1; first < len(message); first++ {
		for _, sizes := range [][]int{{first, len(message)}, {first}} {
			stream := inRecords(message, sizes...)
			if class := compare(t, stream); class != "legal" {
				t.Fatalf("records of %d: %s", sizes, class)
			}
			if n := checkPieces(t, stream); n != len(stream) {
				t.Fatalf("records of %d: accepted after %d of %d bytes", sizes, n, len(stream))
			}
		}
	}
}

// TestNothingTwice drips a hello of 60 KB and destroys what has been read: a
// Scanner that went over it again would find no records. Only the last call
// puts the message together.
func TestNothingTwice(t *testing.T) {
	g := newGenerator(3)
	message := message{
		version: 0x0303, suites: g.noise(2), methods: []byte{0},
		extensions: []extension{{21, make([]byte, 60000)}, serverName("www.example.org")},
	}.bytes()
	for _, size := range []int{1, 7, 16000} {
		stream := inRecords(message, size)
		seen := bytes.Clone(stream)
		var s clienthello.Scanner
		calls, gone := 0, 0
		for n := range len(stream) {
			if n < s.Need() {
				continue
			}
			calls++
			if _, err := s.Parse(seen[:n], 0); !errors.Is(err, clienthello.ErrShort) {
				t.Fatalf("records of %d: first %d bytes: %v", size, n, err)
			}
			for gone+5 <= n && gone+5+int(stream[gone+3])<<8+int(stream[gone+4]) <= n {
				next := gone + 5 + int(stream[gone+3])<<8 + int(stream[gone+4])
				clear(seen[gone:next])
				gone = next
			}
		}
		if most := 12 + 6*(len(message)/size+1); calls > most {
			t.Errorf("records of %d: %d calls, want at most %d", size, calls, most)
		}
		if h, err := s.Parse(stream, 0); err != nil || string(h.ServerName()) != "www.example.org" {
			t.Errorf("records of %d: %q, %v", size, h.ServerName(), err)
		}
	}
}

// TestEarly names the byte that a refusal must not wait beyond.
func TestEarly(t *testing.T) {
	head := "\x16\x03\x01\x00\xff"
	for _, c := range []struct {
		refused string
		notTLS  bool
	}{
		{"G", true},
		{"\x80", true},
		{"\x15", true},
		{"\x17", true},
		{"\x16\x02", true},
		{"\x16\x03\x00", true},
		{"\x16\x03\x04", true},
		{"\x16\x03\x01\x00\x00", false},
		{"\x16\x03\x01\x40\x01", false},
		{head + "\x02", false},
		{head + "\x01\x00\x00\x2f", false}, // less than the record
		{"\x16\x03\x01\x00\x01\x01\x15", false},
		{"\x16\x03\x01\x00\x01\x01\x16\x02", false},
		{"\x16\x03\x01\x00\x01\x01\x16\x03\x05", false},
		{"\x16\x03\x01\x00\x01\x01\x16\x03\x03\x00\x00", false},
	} {
		n := checkPieces(t, []byte(c.refused))
		_, err := clienthello.Parse([]byte(c.refused))
		if n != len(c.refused) || err == nil || errors.Is(err, clienthello.ErrShort) || errors.Is(err, clienthello.ErrNotTLS) != c.notTLS {
			t.Errorf("%q: %v after %d bytes", c.refused, err, n)
		}
	}
}

func TestLimit(t *testing.T) {
	g := newGenerator(4)
	message := message{
		version: 0x0303, suites: g.noise(2), methods: []byte{0}, extensions: []extension{{21, make([]byte, 20000)}},
	}.bytes()
	for _, sizes := range [][]int{{16384}, {1}, {1, 16384}, {3, 9000}} {
		stream := inRecords(message, sizes...)
		for _, limit := range []int{0, len(stream), len(stream) - 1, len(message), 512, 8} {
			var s clienthello.Scanner
			var err error
			n := 0
			for ; n <= len(stream); n++ {
				if _, err = s.Parse(stream[:n], limit); !errors.Is(err, clienthello.ErrShort) {
					break
				}
			}
			if fits := limit == 0 || limit >= len(stream); fits != (err == nil) || !fits && !errors.Is(err, clienthello.ErrTooLong) {
				t.Errorf("records of %d, limit %d of %d bytes: %v", sizes, limit, len(stream), err)
			}
			if limit > 0 && n > limit {
				t.Errorf("records of %d, limit %d: refused only after %d bytes", sizes, limit, n)
			}
			if limit == 512 && sizes[0] == 16384 && n != 9 {
				t.Errorf("limit %d: refused after %d bytes, and the length is in the first 9", limit, n)
			}
		}
	}
}

func TestNoAllocations(t *testing.T) {
	g := newGenerator(5)
	m := g.message()
	m.extensions = []extension{serverName("API.example.org"), alpn("h2", "http/1.1"), {21, make([]byte, 2000)}}
	stream, cut := inRecords(m.bytes(), 1<<14), inRecords(m.bytes(), 500)
	table := clienthello.NewTable([]clienthello.Route{
		{SNI: []string{"*.example.org"}, ALPN: []string{"h2"}}, {SNI: []string{"api.example.org"}, ALPN: []string{"h3"}},
	})
	allocations := func(stream []byte) float64 {
		return testing.AllocsPerRun(20, func() {
			var s clienthello.Scanner
			for n := range len(stream) {
				if _, err := s.Parse(stream[:n], 0); !errors.Is(err, clienthello.ErrShort) {
					t.Fatal(err)
				}
			}
			h, err := s.Parse(stream, 0)
			if err != nil || table.Match(&h) != 0 {
				t.Fatal(err)
			}
			offered := 0
			for p := range h.Protocols {
				offered += len(p)
			}
			if offered != len("h2")+len("http/1.1") {
				t.Fatal(offered)
			}
		})
	}
	if n := allocations(stream); n > 0 {
		t.Errorf("a hello in one record: %v allocations", n)
	}
	if n := allocations(cut); n > 1 {
		t.Errorf("a hello in several records: %v allocations, want one", n)
	}
}

func BenchmarkParse(b *testing.B) {
	g := newGenerator(6)
	m := g.message()
	m.extensions = []extension{serverName("api.example.org"), alpn("h2", "http/1.1"), {51, make([]byte, 1250)}, {43, make([]byte, 5)}}
	stream := inRecords(m.bytes(), 1<<14)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := clienthello.Parse(stream); err != nil {
			b.Fatal(err)
		}
	}
}
