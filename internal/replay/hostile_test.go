package replay

import (
	"bytes"
	"encoding/binary"
	"io"
	"strings"
	"testing"
)

// block makes a pcapng block.
func block(kind uint32, body []byte) []byte {
	n := uint32(12 + len(body))
	b := binary.LittleEndian.AppendUint32(nil, kind)
	b = binary.LittleEndian.AppendUint32(b, n)
	return binary.LittleEndian.AppendUint32(append(b, body...), n)
}

var (
	sectionBody   = []byte{0x4d, 0x3c, 0x2b, 0x1a, 1, 0, 0, 0, 255, 255, 255, 255, 255, 255, 255, 255}
	interfaceBody = []byte{1, 0, 0, 0, 0, 0, 0, 0}
)

func join(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

func TestHostile(t *testing.T) {
	frames, times := recording(2)
	section, iface := block(blockSection, sectionBody), block(blockInterface, interfaceBody)
	wrong := block(blockEnhanced, make([]byte, 40))
	wrong[len(wrong)-4]++
	claims := make([]byte, 40)
	claims[14] = 1 // 64 KiB in a block of 52 bytes
	raw := pcap(t, frames, times)
	raw[20] = 101
	for name, tt := range map[string]struct {
		file []byte
		want string
	}{
		"empty":              {nil, "unexpected EOF"},
		"short":              {[]byte{1, 2, 3}, "unexpected EOF"},
		"text":               {[]byte("not a capture, but long enough to be one"), "Unknown magic"},
		"raw IP":             {raw, "only Ethernet can be sent"},
		"gzip in gzip":       {gzipped(t, gzipped(t, pcap(t, frames, times))), "compressed twice"},
		"lengths differ":     {join(section, iface, wrong), "two lengths differ"},
		"packet too long":    {join(section, iface, block(blockEnhanced, claims)), "type 6 with a wrong length"},
		"many interfaces":    {join(section, bytes.Repeat(iface, maxInterfaces+1)), "more than 1024 interfaces"},
		"huge block":         {join(section, iface, []byte{6, 0, 0, 0, 0, 0, 0, 0x7f, 0, 0, 0, 0}), "pcapng block of 2130706432 bytes"},
		"no interface":       {join(section, block(blockEnhanced, make([]byte, 20))), "nterface"},
		"byte order":         {block(blockSection, make([]byte, 16)), "without a byte order"},
		"division by zero":   {join(section, block(blockInterface, join(interfaceBody, []byte{9, 0, 1, 0, 0xff, 0, 0, 0, 0, 0, 0, 0})), block(blockEnhanced, make([]byte, 20))), ""},
		"pcap length":        {join(pcap(t, nil, nil), []byte{0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 255, 127, 255, 255, 255, 127}), "capture length exceeds"},
		"simple packet, cut": {join(section, iface, block(blockSimple, []byte{200, 0, 0, 0, 1, 2, 3, 4})), ""},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := read(tt.file)
			if tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("%v, want %q", err, tt.want)
			}
		})
	}
}

// zeros is a pcapng block without end.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// TestBounded reads gigabytes of blocks that are to be passed over, and holds
// none of them.
func TestBounded(t *testing.T) {
	other := block(0x0bad, make([]byte, maxBlock-12))
	many := make([]io.Reader, 0, 202)
	many = append(many, bytes.NewReader(join(block(blockSection, sectionBody), block(blockInterface, interfaceBody))))
	for range 200 {
		many = append(many, bytes.NewReader(other))
	}
	r, err := NewReader(io.MultiReader(append(many, zeros{})...))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, err := r.Next(); err == nil || !strings.Contains(err.Error(), "pcapng block of 0 bytes") {
		t.Error(err)
	}
}

func FuzzReader(f *testing.F) {
	frames, times := recording(3)
	f.Add(pcap(f, frames, times))
	f.Add(pcapng(f, frames, times))
	f.Add(gzipped(f, pcap(f, frames, times)))
	f.Add(zstandard(f, pcapng(f, frames, times)))
	f.Add(join(block(blockSection, sectionBody), block(blockInterface, join(interfaceBody, []byte{9, 0, 1, 0, 0xff, 0, 0, 0, 0, 0, 0, 0})), block(blockEnhanced, make([]byte, 20))))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := NewReader(bytes.NewReader(b))
		if err != nil {
			return
		}
		defer r.Close()
		var w Rewrite
		for _, err := range []error{w.AddIP("0.0.0.0/1=128.0.0.0/1"), w.AddIP("::/1=8000::/1"), w.AddPort("0=1"), w.AddMAC("00:00:00:00:00:00=02:00:00:00:00:01"), w.SetVLAN("7")} {
			if err != nil {
				t.Fatal(err)
			}
		}
		for range 1000 {
			p, err := r.Next()
			if err != nil {
				return
			}
			if len(p.Data) > maxPacket {
				t.Fatalf("packet of %d bytes", len(p.Data))
			}
			w.Apply(p.Data)
		}
	})
}
