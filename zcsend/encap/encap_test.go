package encap_test

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"

	"github.com/tproxyd/tproxyd/internal/golden"
	"github.com/tproxyd/tproxyd/zcsend/encap"
)

// The ends, of both families.
var ends = map[string][2]netip.Addr{
	"ipv4": {netip.MustParseAddr("198.18.2.1"), netip.MustParseAddr("198.18.2.2")},
	"ipv6": {netip.MustParseAddr("2001:db8:2::1"), netip.MustParseAddr("2001:db8:2::2")},
}

var kinds = []encap.Kind{encap.VXLAN, encap.GRE, encap.ERSPAN}

// frame is an Ethernet frame with a VLAN tag, priority 5 and VLAN 66, and IPv4
// in it.
func frame(n int) []byte {
	f, _ := hex.DecodeString("020000000002" + "020000000001" + "8100a042" + "0800" + "4500002e000040004011" + "0000" + "cb007101" + "cb007102" + "0fa00009001a0000")
	for len(f) < n {
		f = append(f, byte(len(f)*7))
	}
	return f
}

func encoder(t testing.TB, family string, kind encap.Kind) *encap.Encoder {
	t.Helper()
	e, err := encap.New(encap.Config{Kind: kind, Source: ends[family][0], Destination: ends[family][1], ID: 0x2a7, Index: 0x12345})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// each calls test for every kind and family.
func each(t *testing.T, test func(t *testing.T, e *encap.Encoder, family string, kind encap.Kind)) {
	for _, kind := range kinds {
		for _, family := range []string{"ipv4", "ipv6"} {
			t.Run(fmt.Sprintf("%s/%s", kind, family), func(t *testing.T) { test(t, encoder(t, family, kind), family, kind) })
		}
	}
}

func TestGolden(t *testing.T) {
	var b strings.Builder
	for _, kind := range kinds {
		for _, family := range []string{"ipv4", "ipv6"} {
			e := encoder(t, family, kind)
			packets, _, err := e.Encode(nil, nil, frame(60), true, 1500)
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprintf(&b, "%s over %s, %d bytes more\n%s", kind, family, e.Overhead(), hex.Dump(packets[0].Head))
		}
	}
	golden.Compare(t, "heads.golden", b.String())
}

// TestDecoded has somebody else read what we write.
func TestDecoded(t *testing.T) {
	each(t, func(t *testing.T, e *encap.Encoder, family string, kind encap.Kind) {
		f := frame(301)
		packets, _, err := e.Encode(nil, nil, f, true, 1500)
		if err != nil || len(packets) != 1 {
			t.Fatalf("%d packets, %v", len(packets), err)
		}
		outer := append(append([]byte(nil), packets[0].Head...), packets[0].Body...)
		if len(outer) != e.Overhead()+len(f) {
			t.Errorf("%d bytes for a frame of %d, overhead %d", len(outer), len(f), e.Overhead())
		}
		first := layers.LayerTypeIPv4
		if family == "ipv6" {
			first = layers.LayerTypeIPv6
		}
		p := gopacket.NewPacket(outer, first, gopacket.Default)
		checkSums(t, outer, family, kind)
		checkHeaders(t, p, kind)
		eth, ok := p.Layer(layers.LayerTypeEthernet).(*layers.Ethernet)
		if !ok {
			t.Fatalf("no frame in %v", p)
		}
		if got := append(append([]byte(nil), eth.Contents...), eth.Payload...); !bytes.Equal(got, f) {
			t.Errorf("frame is %x", got)
		}
	})
}

// checkSums adds up as a receiver does, RFC 1071, a byte at a time.
func checkSums(t *testing.T, b []byte, family string, kind encap.Kind) {
	t.Helper()
	ones := func(parts ...[]byte) (s uint32) {
		for _, p := range parts {
			for i := range p {
				s += uint32(p[i]) << (8 * (1 - i%2))
				s = s&0xffff + s>>16
			}
		}
		return s
	}
	if family == "ipv4" {
		if got := ones(b[:20]); got != 0xffff {
			t.Errorf("IPv4 header adds up to %#x", got)
		}
		return
	}
	if kind == encap.VXLAN {
		length := binary.BigEndian.AppendUint32(nil, uint32(len(b)-40))
		if got := ones(b[8:40], length, []byte{0, 17}, b[40:]); got != 0xffff {
			t.Errorf("UDP adds up to %#x", got)
		}
	}
}

func checkHeaders(t *testing.T, p gopacket.Packet, kind encap.Kind) {
	t.Helper()
	switch kind {
	case encap.VXLAN:
		v, ok := p.Layer(layers.LayerTypeVXLAN).(*layers.VXLAN)
		if !ok || v.VNI != 0x2a7 || !v.ValidIDFlag {
			t.Errorf("%+v", v)
		}
		if u := p.Layer(layers.LayerTypeUDP).(*layers.UDP); u.SrcPort < 49152 {
			t.Errorf("source port %d", u.SrcPort)
		}
	case encap.GRE:
		g, ok := p.Layer(layers.LayerTypeGRE).(*layers.GRE)
		if !ok || !g.KeyPresent || g.Key != 0x2a7 {
			t.Errorf("%+v", g)
		}
	case encap.ERSPAN:
		s, ok := p.Layer(layers.LayerTypeERSPANII).(*layers.ERSPANII)
		if !ok || s.SessionID != 0x2a7 || s.VLANIdentifier != 66 || s.CoS != 5 || !s.IsTruncated || s.Index != 0x12345 || s.Version != 1 {
			t.Errorf("%+v", s)
		}
	}
}

// TestFragments puts fragments together again, by RFC 791 and RFC 8200, and
// compares with what was not cut.
func TestFragments(t *testing.T) {
	each(t, func(t *testing.T, _ *encap.Encoder, family string, kind encap.Kind) {
		for _, size := range []int{1400, 1472, 1514, 2900, 9014, 60000} {
			whole, _, err := encoder(t, family, kind).Encode(nil, nil, frame(size), false, 1<<17)
			if err != nil {
				t.Fatal(err)
			}
			packets, _, err := encoder(t, family, kind).Encode(nil, nil, frame(size), false, 1500)
			if err != nil {
				t.Fatal(err)
			}
			ip := 20
			if family == "ipv6" {
				ip = 40
			}
			want := append(append([]byte(nil), whole[0].Head[ip:]...), whole[0].Body...)
			if got := reassemble(t, packets, family); !bytes.Equal(got, want) {
				t.Errorf("%d bytes: fragments come to %d bytes, want %d", size, len(got), len(want))
			}
		}
	})
}

func reassemble(t *testing.T, packets []encap.Packet, family string) (all []byte) {
	t.Helper()
	be := binary.BigEndian
	for i, p := range packets {
		b := append(append([]byte(nil), p.Head...), p.Body...)
		if len(b) > 1500 {
			t.Errorf("fragment of %d bytes", len(b))
		}
		if len(packets) == 1 {
			return b[map[string]int{"ipv4": 20, "ipv6": 40}[family]:]
		}
		var offset, length, head int
		var more bool
		if family == "ipv4" {
			word := be.Uint16(b[6:])
			offset, more, length, head = int(word&0x1fff)*8, word&0x2000 != 0, int(be.Uint16(b[2:])), 20
		} else {
			word := be.Uint16(b[42:])
			offset, more, length, head = int(word&^7), word&1 != 0, int(be.Uint16(b[4:]))+40, 48
		}
		if offset != len(all) || more != (i < len(packets)-1) || length != len(b) {
			t.Errorf("fragment %d: offset %d after %d bytes, more %t, length %d of %d", i, offset, len(all), more, length, len(b))
		}
		all = append(all, b[head:]...)
	}
	return all
}

func TestTooLong(t *testing.T) {
	e := encoder(t, "ipv4", encap.VXLAN)
	for _, c := range []struct{ size, mtu int }{{65500, 1500}, {1514, 40}} {
		packets, buf, err := e.Encode(nil, nil, frame(c.size), false, c.mtu)
		if !errors.Is(err, encap.ErrTooLong) || len(packets) != 0 || len(buf) != 0 {
			t.Errorf("%d bytes at an MTU of %d: %d packets, %v", c.size, c.mtu, len(packets), err)
		}
	}
}

func TestSequence(t *testing.T) {
	e := encoder(t, "ipv4", encap.ERSPAN)
	for i := range uint32(3) {
		packets, _, err := e.Encode(nil, nil, frame(60), false, 1500)
		if err != nil {
			t.Fatal(err)
		}
		if got := binary.BigEndian.Uint32(packets[0].Head[24:]); got != i {
			t.Errorf("sequence number %d, want %d", got, i)
		}
	}
}

func TestRefused(t *testing.T) {
	v4, v6 := ends["ipv4"], ends["ipv6"]
	for _, c := range []encap.Config{
		{Kind: "ipip", Source: v4[0], Destination: v4[1]},
		{Kind: encap.GRE, Source: v4[0]},
		{Kind: encap.GRE, Source: v4[0], Destination: v6[1]},
		{Kind: encap.VXLAN, Source: v4[0], Destination: v4[1], ID: encap.MaxVNI + 1},
		{Kind: encap.ERSPAN, Source: v4[0], Destination: v4[1], ID: encap.MaxSession + 1},
		{Kind: encap.ERSPAN, Source: v4[0], Destination: v4[1], Index: encap.MaxIndex + 1},
	} {
		if _, err := encap.New(c); err == nil {
			t.Errorf("%+v was taken", c)
		}
	}
}

func TestNoAllocation(t *testing.T) {
	e := encoder(t, "ipv6", encap.VXLAN)
	f := frame(1000)
	var packets []encap.Packet
	var buf []byte
	if n := testing.AllocsPerRun(100, func() {
		packets, buf, _ = e.Encode(packets[:0], buf[:0], f, false, 1500)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// FuzzEncode takes any frame and MTU: the fragments have to be the packet.
func FuzzEncode(f *testing.F) {
	f.Add(frame(60), 1500)
	f.Add(frame(3000), 576)
	f.Add([]byte{1}, 68)
	f.Fuzz(func(t *testing.T, b []byte, mtu int) {
		for family := range ends {
			for _, kind := range kinds {
				packets, _, err := encoder(t, family, kind).Encode(nil, nil, b, false, mtu)
				n := 0
				for _, p := range packets {
					if len(p.Head)+len(p.Body) > mtu {
						t.Errorf("%d bytes at an MTU of %d", len(p.Head)+len(p.Body), mtu)
					}
					n += len(p.Body)
				}
				if err == nil && n != len(b) {
					t.Errorf("%d bytes of %d", n, len(b))
				}
			}
		}
	})
}

func ExampleEncoder() {
	e, err := encap.New(encap.Config{
		Kind: encap.VXLAN, ID: 5000,
		Source: netip.MustParseAddr("203.0.113.1"), Destination: netip.MustParseAddr("203.0.113.9"),
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	packets, _, err := e.Encode(nil, nil, make([]byte, 1514), false, 1500)
	for _, p := range packets {
		fmt.Println(len(p.Head), "+", len(p.Body), err)
	}
	// Output:
	// 36 + 1464 <nil>
	// 20 + 50 <nil>
}
