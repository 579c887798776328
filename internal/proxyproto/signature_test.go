package proxyproto_test

import (
	"errors"
	"slices"
	"testing"

	"github.com/tproxyd/tproxyd/internal/proxyproto"
)

// TestSignature feeds streams in two pieces, cut everywhere.
func TestSignature(t *testing.T) {
	const v2 = "\r\n\r\n\x00\r\nQUIT\n"
	for _, c := range []struct {
		stream  string
		want    proxyproto.Verdict
		decided int // by this many bytes
	}{
		{"PROXY TCP4 ", proxyproto.Present, 6},
		{v2 + "\x21", proxyproto.Present, 12},
		{"PROXY", proxyproto.Possible, 5},
		{v2[:11], proxyproto.Possible, 11},
		{"", proxyproto.Possible, 0},
		{"PROXIMITY", proxyproto.Absent, 5},
		{"proxy ", proxyproto.Absent, 1},
		{"\r\nGET", proxyproto.Absent, 3},
		{"PPROXY ", proxyproto.Absent, 2},
		{"\x16\x03\x01", proxyproto.Absent, 1},
	} {
		for cut := range len(c.stream) + 1 {
			var s proxyproto.Signature
			first := s.Scan([]byte(c.stream[:cut]))
			if want := proxyproto.Possible; cut < c.decided && first != want {
				t.Errorf("%q: first %d bytes: %d, want %d", c.stream, cut, first, want)
			} else if cut >= c.decided && first != c.want {
				t.Errorf("%q: first %d bytes: %d, want %d", c.stream, cut, first, c.want)
			}
			if got := s.Scan([]byte(c.stream[cut:])); got != c.want {
				t.Errorf("%q cut at %d: %d, want %d", c.stream, cut, got, c.want)
			}
			if got := s.Scan([]byte("later")); c.want != proxyproto.Possible && got != c.want {
				t.Errorf("%q: %d after more, want %d", c.stream, got, c.want)
			}
		}
	}
}

// FuzzParse holds what is true for all bytes: the model's verdict, the same
// for all prefixes, and a header that is written as it was read.
func FuzzParse(f *testing.F) {
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > proxyproto.MaxHeader {
			return
		}
		stream := slices.Concat(b, filler)
		want, n, why := model(stream)
		checkVerdict(t, stream, want, n, why)
		h, _, err := proxyproto.Parse(stream)
		if err != nil || h.Local {
			return
		}
		again, _, err := proxyproto.Parse(proxyproto.AppendV2(nil, &h))
		if err != nil || again.Source != h.Source || again.Destination != h.Destination || string(again.UniqueID) != string(h.UniqueID) {
			t.Fatalf("%+v is read as %+v, %v", h, again, err)
		}
	})
}

func TestNoAllocations(t *testing.T) {
	g := newGenerator(5)
	buffer := make([]byte, 0, proxyproto.MaxHeader)
	for range 200 {
		h := g.header()
		line, block := proxyproto.AppendV1(nil, h.Source, h.Destination), proxyproto.AppendV2(nil, &h)
		for name, f := range map[string]func(){
			"AppendV1":       func() { proxyproto.AppendV1(buffer, h.Source, h.Destination) },
			"AppendV2":       func() { proxyproto.AppendV2(buffer, &h) },
			"Parse a line":   func() { mustParse(t, line) },
			"Parse a block":  func() { mustParse(t, block) },
			"Parse too soon": func() { mustBeShort(t, block[:len(block)-1]) },
		} {
			if n := testing.AllocsPerRun(1, f); n > 0 {
				t.Fatalf("%s allocates %v times: %q", name, n, line)
			}
		}
	}
}

func mustParse(t testing.TB, b []byte) {
	if _, _, err := proxyproto.Parse(b); err != nil {
		t.Fatal(err)
	}
}

func mustBeShort(t testing.TB, b []byte) {
	if _, _, err := proxyproto.Parse(b); !errors.Is(err, proxyproto.ErrShort) {
		t.Fatal(err)
	}
}

func BenchmarkParse(b *testing.B) {
	g := newGenerator(6)
	h := g.header()
	h.ALPN, h.Authority, h.UniqueID, h.Checksum = nil, nil, nil, false
	for name, header := range map[string][]byte{
		"v1": proxyproto.AppendV1(nil, h.Source, h.Destination), "v2": proxyproto.AppendV2(nil, &h),
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				mustParse(b, header)
			}
		})
	}
}
