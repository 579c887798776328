package wire

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tproxyd/tproxyd/internal/netnstest"
	"github.com/tproxyd/tproxyd/internal/packet"
	"github.com/tproxyd/tproxyd/ringcap/pcapng"
)

func TestMain(m *testing.M) { netnstest.Main(m) }

func TestFrame(t *testing.T) {
	for _, tt := range []struct{ size, segments, want int }{{64, 1, 64}, {1514, 1, 1514}, {1514, 44, 42 + 44*1472}} {
		f := Frame(tt.size, tt.segments)
		l, ok := packet.Parse(f)
		if len(f) != tt.want || !ok || l.Truncated || l.End != len(f) {
			t.Errorf("Frame(%d, %d) has %d bytes, want %d; layout %+v", tt.size, tt.segments, len(f), tt.want, l)
		}
		sums := Frame(tt.size, tt.segments)
		l.SetChecksums(sums)
		if diff := cmp.Diff(sums, f); diff != "" {
			t.Errorf("Frame(%d, %d) has wrong checksums (-want +got):\n%s", tt.size, tt.segments, diff)
		}
	}
}

// pcap is a file of frames in the old format.
func pcap(frames ...[]byte) []byte {
	b := binary.NativeEndian.AppendUint32(nil, 0xa1b2c3d4)
	b = append(b, make([]byte, 20)...)
	for _, f := range frames {
		b = append(b, make([]byte, 8)...)
		b = binary.NativeEndian.AppendUint32(binary.NativeEndian.AppendUint32(b, uint32(len(f))), uint32(len(f)))
		b = append(b, f...)
	}
	return b
}

func pcapngFile(frames ...[]byte) []byte {
	b := pcapng.AppendInterface(pcapng.AppendSection(nil, pcapng.Section{}), pcapng.Interface{Name: "x"})
	for _, f := range frames {
		b = pcapng.AppendPacket(b, &pcapng.Packet{Data: f, Len: len(f)})
	}
	return b
}

// Both formats: what is not ours is not counted, nor is what has been cut off.
func TestCountDir(t *testing.T) {
	ours, other := Frame(64, 1), make([]byte, 60)
	old, next := pcap(ours, other, ours, ours), pcapngFile(other, ours, ours)
	dir := t.TempDir()
	for name, b := range map[string][]byte{"a.pcap": old[:len(old)-1], "b.pcapng": next, "empty": nil} {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	got, err := CountDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(Held{Packets: 4, Bytes: 4 * 64}, got); diff != "" {
		t.Errorf("CountDir (-want +got):\n%s", diff)
	}
	if err := os.WriteFile(filepath.Join(dir, "text"), []byte("this is no capture file at all"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := CountDir(dir); err == nil {
		t.Error("a text was counted")
	}
}

func FuzzCount(f *testing.F) {
	f.Add(pcap(Frame(64, 1)))
	f.Add(pcapngFile(Frame(64, 1), Frame(100, 1)))
	f.Fuzz(func(t *testing.T, b []byte) {
		var h Held
		if err := h.Count(b); err == nil && h.Bytes > uint64(len(b)) {
			t.Errorf("%d bytes in a file of %d", h.Bytes, len(b))
		}
	})
}

func Example() {
	var h Held
	fmt.Println(h.Count(pcap(Frame(64, 1))), h.Packets, h.Bytes)
	// Output: <nil> 1 64
}
