package pcapng_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"testing"

	"github.com/gopacket/gopacket/pcapgo"
)

var ne = binary.NativeEndian

// read is a packet as it is in a file.
type read struct {
	Interface  int
	Nanos      int64
	Data       string
	Len        int
	Flags      uint32
	ID         uint64
	Size       uint16 // of a segment
	Kind, GSOF uint8
	Comment    string
}

// parse walks over packet blocks and fails on anything that is not right.
func parse(t testing.TB, b []byte) []read {
	t.Helper()
	var all []read
	for len(b) > 0 {
		if len(b) < 12 {
			t.Fatalf("%d bytes at the end", len(b))
		}
		kind, n := ne.Uint32(b), ne.Uint32(b[4:])
		if n%4 != 0 || n < 12 || uint64(n) > uint64(len(b)) || ne.Uint32(b[n-4:]) != n {
			t.Fatalf("block of type %#x has length %d, %d bytes are left", kind, n, len(b))
		}
		if kind == 6 {
			all = append(all, parsePacket(t, b[8:n-4]))
		}
		b = b[n:]
	}
	return all
}

func parsePacket(t testing.TB, b []byte) read {
	t.Helper()
	captured := int(ne.Uint32(b[12:]))
	p := read{
		Interface: int(ne.Uint32(b)), Nanos: int64(uint64(ne.Uint32(b[4:]))<<32 | uint64(ne.Uint32(b[8:]))),
		Len: int(ne.Uint32(b[16:])), Data: string(b[20 : 20+captured]),
	}
	padded := (captured + 3) &^ 3
	for _, zero := range b[20+captured : 20+padded] {
		if zero != 0 {
			t.Fatal("padding is not zero")
		}
	}
	options := b[20+padded:]
	for len(options) > 4 {
		code, n := ne.Uint16(options), int(ne.Uint16(options[2:]))
		v := options[4 : 4+n]
		switch code {
		case 1:
			p.Comment = string(v)
		case 2:
			p.Flags = ne.Uint32(v)
		case 5:
			p.ID = ne.Uint64(v)
		case 2989:
			if ne.Uint32(v) != 32473 {
				t.Fatalf("custom option of %d", ne.Uint32(v))
			}
			if p.Size == 0 && len(v) >= 12 {
				p.Size, p.Kind, p.GSOF = ne.Uint16(v[4:]), v[10], v[11]
			}
		default:
			t.Fatalf("option %d", code)
		}
		options = options[4+(n+3)&^3:]
	}
	if len(options) != 4 || ne.Uint32(options) != 0 {
		t.Fatalf("options end with %x", options)
	}
	return p
}

// gopacket reads a whole file with somebody else's reader.
func gopacket(t testing.TB, file []byte) (data []string, nanos []int64) {
	t.Helper()
	options := pcapgo.DefaultNgReaderOptions
	options.WantMixedLinkType = true
	r, err := pcapgo.NewNgReader(bytes.NewReader(file), options)
	if err != nil {
		t.Fatal(err)
	}
	for {
		b, info, err := r.ReadPacketData()
		if errors.Is(err, io.EOF) {
			return data, nanos
		}
		if err != nil {
			t.Fatal(err)
		}
		data, nanos = append(data, string(b)), append(nanos, info.Timestamp.UnixNano())
	}
}
