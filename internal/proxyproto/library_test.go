package proxyproto_test

import (
	"bufio"
	"bytes"
	"net/netip"
	"slices"
	"testing"

	library "github.com/pires/go-proxyproto"

	"github.com/tproxyd/tproxyd/internal/proxyproto"
)

// TestLibrary compares with go-proxyproto. Where the two differ, the
// difference is one of a list, and all of the list are met.
func TestLibrary(t *testing.T) {
	g := newGenerator(3)
	differences := make(map[string]int)
	for range 20000 {
		header := g.legal()
		switch g.IntN(16) {
		case 0, 1, 2, 3:
		case 4:
			header = g.spoiled()
		default:
			header = g.mutate(header)
		}
		stream := slices.Concat(header, filler)
		ours, n, err := proxyproto.Parse(stream)
		reader := bufio.NewReaderSize(bytes.NewReader(stream), len(stream))
		theirs, theirErr := library.Read(reader)
		if theirErr == nil {
			_, theirErr = theirs.TLVs()
		}
		switch {
		case (err == nil) != (theirErr == nil):
			why := explain(stream, err)
			if why == "" {
				t.Fatalf("%q: ours %v, theirs %v", stream[:min(n+60, 300)], err, theirErr)
			}
			differences[why]++
		case err == nil && ours.Local != isLocal(theirs):
			t.Fatalf("%q: local %v, theirs %+v", stream[:n], ours.Local, theirs)
		case err == nil:
			if read := len(stream) - reader.Buffered(); read != n {
				t.Fatalf("%q: %d bytes, theirs %d", stream[:n], n, read)
			}
			if !ours.Local && (ours.Source != unmapped(theirs.SourceAddr.String()) ||
				ours.Destination != unmapped(theirs.DestinationAddr.String())) {
				t.Fatalf("%q: %v and %v, theirs %+v", stream[:n], ours.Source, ours.Destination, theirs)
			}
		}
	}
	for _, why := range []string{
		"UNKNOWN with a CR of its own", "LOCAL of no known family", "LOCAL with what are no TLVs",
		"PROXY of UNSPEC", "CRC32c not verified", "unique id not bounded",
	} {
		if differences[why] == 0 {
			t.Errorf("no header was %q: is the list still true?", why)
		}
		delete(differences, why)
	}
	for why, n := range differences {
		t.Errorf("%d headers were %q, which is not in the list", n, why)
	}
}

// explain names the known difference that a header is of. The error is ours.
func explain(b []byte, err error) string {
	v2 := bytes.HasPrefix(b, []byte("\r\n\r\n\x00\r\nQUIT\n"))
	_, _, why := model(b)
	switch {
	case !v2 && bytes.HasPrefix(b, []byte("PROXY UNKNOWN")) && err != nil:
		return "UNKNOWN with a CR of its own"
	case !v2:
		return ""
	case b[12] == 0x20 && err == nil:
		switch b[13] {
		case 0x00, 0x11, 0x12, 0x21, 0x22, 0x31, 0x32:
			return "LOCAL with what are no TLVs"
		}
		return "LOCAL of no known family"
	case b[12] == 0x21 && b[13] == 0 && err == nil:
		return "PROXY of UNSPEC"
	case why == "crc", why == "crc length":
		return "CRC32c not verified"
	case why == "unique id":
		return "unique id not bounded"
	}
	return ""
}

// isLocal says whether a header of the library has no addresses for us.
func isLocal(h *library.Header) bool {
	return h.Command.IsLocal() || h.TransportProtocol.IsUnix()
}

func unmapped(s string) netip.AddrPort {
	a := netip.MustParseAddrPort(s)
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}

// TestLibraryReads has the library read what we write.
func TestLibraryReads(t *testing.T) {
	g := newGenerator(4)
	for range 5000 {
		h := g.header()
		for _, b := range [][]byte{proxyproto.AppendV1(nil, h.Source, h.Destination), proxyproto.AppendV2(nil, &h)} {
			theirs, err := library.Read(bufio.NewReaderSize(bytes.NewReader(b), len(b)))
			if err != nil {
				t.Fatalf("%q: %v", b, err)
			}
			if unmapped(theirs.SourceAddr.String()) != h.Source || unmapped(theirs.DestinationAddr.String()) != h.Destination {
				t.Fatalf("%q: %+v, want %+v", b, theirs, h)
			}
			tlvs, err := theirs.TLVs()
			if err != nil {
				t.Fatalf("%q: %v", b, err)
			}
			for _, tlv := range tlvs {
				want := map[library.PP2Type][]byte{
					library.PP2_TYPE_ALPN: h.ALPN, library.PP2_TYPE_AUTHORITY: h.Authority, library.PP2_TYPE_UNIQUE_ID: h.UniqueID,
				}[tlv.Type]
				if tlv.Type != library.PP2_TYPE_CRC32C && !bytes.Equal(tlv.Value, want) {
					t.Fatalf("%q: TLV %v is %q, want %q", b, tlv.Type, tlv.Value, want)
				}
			}
		}
	}
}
