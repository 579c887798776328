package packet

import (
	"encoding/binary"
	"encoding/hex"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// frame puts a frame together from hexadecimal digits.
func frame(t testing.TB, parts ...string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(strings.Join(parts, ""), " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// The parts of a UDP datagram and of
// a SYN, with the checksums that tshark says they should have.
const (
	macs    = "0200 0000 0002 0200 0000 0001"
	v4      = "0800"
	v6      = "86dd"
	udp4    = "4500 0021 1234 4000 4011 996f c612 0102 c612 0202" // 33 bytes
	udp4L4  = "3039 0035 000d fc6a 6865 6c6c 6f"
	tcp6    = "6000 0000 0014 0640 2001 0db8 0001 0000 0000 0000 0000 0002 2001 0db8 0002 0000 0000 0000 0000 0002"
	tcp6L4  = "3039 0050 0000 0001 0000 0000 5002 ffff 23e0 0000"
	padding = "0000 0000 0000 0000 0000 0000 0000"
)

func TestParse(t *testing.T) {
	tests := map[string]struct {
		frame []byte
		want  Layout
		bad   bool
	}{
		"udp4": {
			frame: frame(t, macs, v4, udp4, udp4L4),
			want:  Layout{EtherType: 0x800, L3: 14, IP: true, Protocol: 17, L4: 34, Payload: 42, End: 47},
		},
		"padded": {
			frame: frame(t, macs, v4, udp4, udp4L4, padding),
			want:  Layout{EtherType: 0x800, L3: 14, IP: true, Protocol: 17, L4: 34, Payload: 42, End: 47},
		},
		"two tags": {
			frame: frame(t, macs, "88a8 0007 8100 0008", v4, udp4, udp4L4),
			want:  Layout{EtherType: 0x800, L3: 22, IP: true, Protocol: 17, L4: 42, Payload: 50, End: 55},
		},
		"tcp6": {
			frame: frame(t, macs, v6, tcp6, tcp6L4),
			want:  Layout{EtherType: 0x86dd, L3: 14, IP: true, V6: true, Protocol: 6, L4: 54, Payload: 74, End: 74},
		},
		"cut in the payload": {
			frame: frame(t, macs, v4, udp4, "3039 0035 000d fc6a 68"),
			want:  Layout{EtherType: 0x800, L3: 14, IP: true, Protocol: 17, L4: 34, Payload: 42, End: 43, Truncated: true},
		},
		"cut in the transport": {
			frame: frame(t, macs, v4, udp4, "3039"),
			want:  Layout{EtherType: 0x800, L3: 14, IP: true, Protocol: 17, End: 36, Truncated: true},
		},
		"first fragment": {
			frame: frame(t, macs, v4, "4500 0021 1234 2000 4011 0000 c612 0102 c612 0202", udp4L4),
			want:  Layout{EtherType: 0x800, L3: 14, IP: true, Protocol: 17, L4: 34, Payload: 42, End: 47, Fragment: true},
		},
		"later fragment": {
			frame: frame(t, macs, v4, "4500 0021 1234 0003 4011 0000 c612 0102 c612 0202", udp4L4),
			want:  Layout{EtherType: 0x800, L3: 14, IP: true, Protocol: 17, End: 47, Fragment: true},
		},
		"extension headers": {
			frame: frame(t, macs, v6, "6000 0000 0018 0040", tcp6[20:], "1100 0502 0000 0100", "3c00 0000 0000 0000", "0009 0009 0008 0000"),
			want:  Layout{EtherType: 0x86dd, L3: 14, IP: true, V6: true, Protocol: 17, L4: 62, Payload: 70, End: 78},
		},
		"later fragment of IPv6": {
			frame: frame(t, macs, v6, "6000 0000 0010 2c40", tcp6[20:], "1100 0551 0000 0001", "0009 0009 0008 0000"),
			want:  Layout{EtherType: 0x86dd, L3: 14, IP: true, V6: true, Protocol: 17, End: 70, Fragment: true},
		},
		"atomic fragment": {
			frame: frame(t, macs, v6, "6000 0000 0010 2c40", tcp6[20:], "1100 0000 0000 0001", "0009 0009 0008 0000"),
			want:  Layout{EtherType: 0x86dd, L3: 14, IP: true, V6: true, Protocol: 17, L4: 62, Payload: 70, End: 70},
		},
		"header length too small": {
			frame: frame(t, macs, v4, "4400 0021 1234 4000 4011 996f c612 0102 c612 0202"),
			want:  Layout{EtherType: 0x800, L3: 14, End: 34},
		},
		"ARP": {
			frame: frame(t, macs, "0806 0001 0800"),
			want:  Layout{EtherType: 0x806, L3: 14, End: 18},
		},
		"no ethernet": {frame: frame(t, macs), bad: true},
		"cut tag":     {frame: frame(t, macs, "8100 00"), bad: true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, ok := Parse(tt.frame)
			if ok == tt.bad {
				t.Fatalf("parsed: %v", ok)
			}
			if diff := cmp.Diff(tt.want, got); ok && diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
		})
	}
}

// TestChecksums takes frames whose checksums tshark made, breaks
// these and wants them back.
func TestChecksums(t *testing.T) {
	tests := map[string][]byte{
		"udp4":        frame(t, macs, v4, udp4, udp4L4),
		"udp4 padded": frame(t, macs, v4, udp4, udp4L4, padding),
		"tcp6":        frame(t, macs, v6, tcp6, tcp6L4),
	}
	for name, want := range tests {
		t.Run(name, func(t *testing.T) {
			l, _ := Parse(want)
			if !valid(&l, want) {
				t.Fatal("the frame of the test is wrong")
			}
			got := append([]byte(nil), want...)
			if !l.V6 {
				got[l.L3+10] ^= 0xff
			}
			offset, _ := l.ChecksumOffset()
			got[l.L4+offset] ^= 0xff
			if valid(&l, got) {
				t.Error("a wrong checksum is taken as right")
			}
			if !l.SetChecksums(got) {
				t.Error("not computed")
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
		})
	}
}

// valid checks a transport checksum in a way of its own: the sum over
// everything, checksum included, is all ones.
func valid(l *Layout, frame []byte) bool {
	body := frame[l.L4:l.End]
	var n uint32
	add := func(b []byte) {
		for i, c := range b {
			if i%2 == 0 {
				n += uint32(c) << 8
			} else {
				n += uint32(c)
			}
		}
	}
	add(body)
	if l.Protocol != unix.IPPROTO_ICMP {
		src, dst := l.Addresses(frame)
		add(src)
		add(dst)
		n += uint32(l.Protocol) + uint32(len(body))
	}
	for n > 0xffff {
		n = n>>16 + n&0xffff
	}
	return n == 0xffff
}

func TestUDPChecksumIsNeverZero(t *testing.T) {
	f := frame(t, macs, v4, udp4, udp4L4)
	l, _ := Parse(f)
	// A payload word that makes the sum come out as all ones.
	f[l.Payload], f[l.Payload+1] = 0, 0
	l.SetChecksums(f)
	copy(f[l.Payload:], f[l.L4+6:l.L4+8])
	l.SetChecksums(f)
	if got := binary.BigEndian.Uint16(f[l.L4+6:]); got != 0xffff {
		t.Errorf("checksum %#04x, want 0xffff", got)
	}
}

func TestChecksumsRefused(t *testing.T) {
	for name, f := range map[string][]byte{
		"fragment":            frame(t, macs, v4, "4500 0021 1234 2000 4011 0000 c612 0102 c612 0202", udp4L4),
		"cut":                 frame(t, macs, v4, udp4, "3039 0035 000d fc6a 68"),
		"UDP length too long": frame(t, macs, v4, udp4, "3039 0035 00ff fc6a 6865 6c6c 6f"),
		"UDP length of 0":     frame(t, macs, v4, udp4, "3039 0035 0000 fc6a 6865 6c6c 6f"),
		"ARP":                 frame(t, macs, "0806 0001 0800"),
	} {
		l, _ := Parse(f)
		before := append([]byte(nil), f[l.L3:]...)
		if l.SetChecksums(f) {
			t.Errorf("%s: computed", name)
		}
		if l.IP {
			before[10], before[11] = f[l.L3+10], f[l.L3+11] // its own header's may be
		}
		if diff := cmp.Diff(before, f[l.L3:]); diff != "" {
			t.Errorf("%s: changed: %s", name, diff)
		}
	}
}

// TestAdjust wants an adjusted checksum to be the computed one.
func TestAdjust(t *testing.T) {
	f := frame(t, macs, v6, tcp6, tcp6L4)
	l, _ := Parse(f)
	for i := range 2000 {
		src, _ := l.Addresses(f)
		was := append([]byte(nil), src...)
		binary.BigEndian.PutUint32(src[4:], uint32(i)*2654435761)
		binary.BigEndian.PutUint16(src[14:], uint16(i)*40503)
		adjusted := Adjust(binary.BigEndian.Uint16(f[l.L4+16:]), was, src)
		l.SetChecksums(f)
		if got := binary.BigEndian.Uint16(f[l.L4+16:]); got != adjusted {
			t.Fatalf("round %d: adjusted to %#04x, computed %#04x", i, adjusted, got)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, parts := range [][]string{
		{macs, v4, udp4, udp4L4},
		{macs, v6, tcp6, tcp6L4},
		{macs, "88a8 0007 8100 0008", v4, udp4, udp4L4},
		{macs, v6, "6000 0000 0018 0040", tcp6[20:], "1100 0502 0000 0100", "3c00 0000 0000 0000", "0009 0009 0008 0000"},
	} {
		f.Add(frame(f, parts...))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		l, ok := Parse(b)
		if !ok {
			return
		}
		if l.L3 > len(b) || l.End > len(b) || l.L4 > l.End || l.Payload > l.End || l.L4 != 0 && l.L4 < l.L3 {
			t.Fatalf("out of %d bytes: %+v", len(b), l)
		}
		l.Addresses(b)
		if l.SetChecksums(b) && l.Protocol != unix.IPPROTO_UDP && !valid(&l, b) {
			t.Fatalf("wrong checksum: %+v", l)
		}
		again, ok := Parse(b)
		if !ok || again != l {
			t.Fatalf("checksums changed the layout: %+v, %+v", l, again)
		}
	})
}

func TestAllocations(t *testing.T) {
	f := frame(t, macs, v4, udp4, udp4L4)
	if n := testing.AllocsPerRun(100, func() {
		l, _ := Parse(f)
		l.SetChecksums(f)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
