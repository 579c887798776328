package replay

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
)

// frame has gopacket make a frame with right checksums.
func frame(t testing.TB, vlan uint16, ip gopacket.SerializableLayer, l4 gopacket.SerializableLayer) []byte {
	t.Helper()
	next := layers.EthernetTypeIPv4
	network, ok := ip.(gopacket.NetworkLayer)
	if _, v6 := ip.(*layers.IPv6); v6 {
		next = layers.EthernetTypeIPv6
	}
	eth := &layers.Ethernet{SrcMAC: []byte{2, 0, 0, 0, 0, 1}, DstMAC: []byte{2, 0, 0, 0, 0, 2}, EthernetType: next}
	stack := []gopacket.SerializableLayer{eth}
	if vlan != 0 {
		eth.EthernetType = layers.EthernetTypeDot1Q
		stack = append(stack, &layers.Dot1Q{VLANIdentifier: vlan, Type: next})
	}
	if s, sums := l4.(interface {
		SetNetworkLayerForChecksum(gopacket.NetworkLayer) error
	}); sums && ok {
		if err := s.SetNetworkLayerForChecksum(network); err != nil {
			t.Fatal(err)
		}
	}
	stack = append(stack, ip, l4, gopacket.Payload("an odd payload that needs no padding, as frames have 60 bytes."))
	b := gopacket.NewSerializeBuffer()
	if err := gopacket.SerializeLayers(b, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, stack...); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func ip4(src, dst string, protocol layers.IPProtocol) *layers.IPv4 {
	return &layers.IPv4{Version: 4, TTL: 9, Id: 7, Protocol: protocol, SrcIP: netip.MustParseAddr(src).AsSlice(), DstIP: netip.MustParseAddr(dst).AsSlice()}
}

func ip6(dst string, protocol layers.IPProtocol) *layers.IPv6 {
	return &layers.IPv6{Version: 6, HopLimit: 9, NextHeader: protocol, SrcIP: netip.MustParseAddr("2001:db8:1::2").AsSlice(), DstIP: netip.MustParseAddr(dst).AsSlice()}
}

func udp(src, dst uint16) *layers.UDP {
	return &layers.UDP{SrcPort: layers.UDPPort(src), DstPort: layers.UDPPort(dst)}
}

func tcp(src, dst uint16) *layers.TCP {
	return &layers.TCP{SrcPort: layers.TCPPort(src), DstPort: layers.TCPPort(dst), SYN: true, Window: 9}
}

// TestRewrite wants what gopacket makes of the new addresses in the first
// place, checksums and all.
func TestRewrite(t *testing.T) {
	icmp6 := func() *layers.ICMPv6 {
		return &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(128, 0)}
	}
	icmp4 := func() *layers.ICMPv4 { return &layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(8, 0)} }
	const a4, b4, c4, b6, c6 = "198.18.1.2", "198.18.2.2", "203.0.113.2", "2001:db8:2::2", "2001:db8:f::2"
	for name, tt := range map[string]struct {
		maps     string
		was, its []byte
	}{
		"udp4":       {"ip 198.18.2.2=203.0.113.2 port 53=5353", frame(t, 0, ip4(a4, b4, 17), udp(9, 53)), frame(t, 0, ip4(a4, c4, 17), udp(9, 5353))},
		"prefix":     {"ip 198.18.2.0/24=203.0.113.0/24", frame(t, 0, ip4(b4, a4, 6), tcp(9, 53)), frame(t, 0, ip4(c4, a4, 6), tcp(9, 53))},
		"tcp6":       {"ip 2001:db8:2::/48=2001:db8:f::/48 port 80=81", frame(t, 0, ip6(b6, 6), tcp(80, 80)), frame(t, 0, ip6(c6, 6), tcp(81, 81))},
		"icmp4":      {"ip 198.18.2.2=203.0.113.2", frame(t, 0, ip4(a4, b4, 1), icmp4()), frame(t, 0, ip4(a4, c4, 1), icmp4())},
		"icmp6":      {"ip 2001:db8:2::2=2001:db8:f::2", frame(t, 0, ip6(b6, 58), icmp6()), frame(t, 0, ip6(c6, 58), icmp6())},
		"swap":       {"ip 198.18.1.2=198.18.2.2 ip 198.18.2.2=198.18.1.2", frame(t, 0, ip4(a4, b4, 17), udp(1, 2)), frame(t, 0, ip4(b4, a4, 17), udp(1, 2))},
		"tag":        {"vlan 42", frame(t, 0, ip4(a4, b4, 17), udp(1, 2)), frame(t, 42, ip4(a4, b4, 17), udp(1, 2))},
		"other tag":  {"vlan 42", frame(t, 7, ip6(b6, 17), udp(1, 2)), frame(t, 42, ip6(b6, 17), udp(1, 2))},
		"no tag":     {"vlan none", frame(t, 7, ip6(b6, 17), udp(1, 2)), frame(t, 0, ip6(b6, 17), udp(1, 2))},
		"nothing":    {"ip 198.18.9.9=198.18.8.8 port 1=2 mac 02:00:00:00:00:09=02:00:00:00:00:08", frame(t, 0, ip4(a4, b4, 17), udp(3, 4)), frame(t, 0, ip4(a4, b4, 17), udp(3, 4))},
		"in a tag":   {"port 2=3", frame(t, 7, ip4(a4, b4, 17), udp(1, 2)), frame(t, 7, ip4(a4, b4, 17), udp(1, 3))},
		"icmp ports": {"port 2048=1", frame(t, 0, ip4(a4, b4, 1), icmp4()), frame(t, 0, ip4(a4, b4, 1), icmp4())},
	} {
		t.Run(name, func(t *testing.T) {
			r := maps(t, tt.maps)
			if diff := cmp.Diff(tt.its, r.Apply(append([]byte(nil), tt.was...))); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
			// The same with the transport's end not captured.
			cut := len(tt.was) - 6
			got := r.Apply(append([]byte(nil), tt.was[:cut]...))
			if diff := cmp.Diff(tt.its[:len(got)], got); diff != "" {
				t.Errorf("cut: -want +got\n%s", diff)
			}
		})
	}
}

// maps reads "kind map kind map".
func maps(t testing.TB, s string) *Rewrite {
	t.Helper()
	r := &Rewrite{}
	words := strings.Fields(s)
	for i := 0; i < len(words); i += 2 {
		if err := add(r, words[i], words[i+1]); err != nil {
			t.Fatal(err)
		}
	}
	return r
}

func add(r *Rewrite, kind, s string) error {
	switch kind {
	case "ip":
		return r.AddIP(s)
	case "port":
		return r.AddPort(s)
	case "mac":
		return r.AddMAC(s)
	case "vlan":
		return r.SetVLAN(s)
	}
	return fmt.Errorf("no map of kind %s", kind)
}

func TestARPAndMAC(t *testing.T) {
	const form = "\x02\x00\x00\x00\x00%c\x02\x00\x00\x00\x00%c\x08\x06\x00\x01\x08\x00\x06\x04\x00\x01\x02\x00\x00\x00\x00%c\xc6\x12%c\x02\x00\x00\x00\x00\x00\x00\xc6\x12\x01\x03"
	was, its := fmt.Sprintf(form, 2, 1, 1, 1), fmt.Sprintf(form, 2, 3, 3, 5)
	r := maps(t, "ip 198.18.1.2=198.18.5.2 mac 02:00:00:00:00:01=02:00:00:00:00:03")
	if diff := cmp.Diff([]byte(its), r.Apply([]byte(was))); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

// TestFragments keeps the checksum of a datagram right whose fragments are
// rewritten one by one: its first has it, for all of them.
func TestFragments(t *testing.T) {
	r := maps(t, "ip 198.18.2.2=203.0.113.2 port 53=5353")
	was, its := frame(t, 0, ip4("198.18.1.2", "198.18.2.2", 17), udp(9, 53)), frame(t, 0, ip4("198.18.1.2", "203.0.113.2", 17), udp(9, 5353))
	for _, f := range [][]byte{was, its} {
		f[20] |= 0x20 // more fragments
	}
	got := r.Apply(was)
	if diff := cmp.Diff(its[34:], got[34:]); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

// TestNoChecksum keeps a UDP datagram over IPv4 without one.
func TestNoChecksum(t *testing.T) {
	f := frame(t, 0, ip4("198.18.1.2", "198.18.2.2", 17), udp(9, 53))
	f[40], f[41] = 0, 0
	if got := maps(t, "port 53=54").Apply(f); binary.BigEndian.Uint16(got[40:]) != 0 {
		t.Errorf("checksum %x", got[40:42])
	}
	r := &Rewrite{Checksums: true}
	want := frame(t, 0, ip4("198.18.1.2", "198.18.2.2", 17), udp(9, 54))
	if diff := cmp.Diff(want, r.Apply(f)); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

func TestMapErrors(t *testing.T) {
	for _, tt := range []string{
		"ip 1.2.3.4", "ip x=1.2.3.4", "ip 1.2.3.4=::1", "ip 10.0.0.0/8=10.0.0.0/9", "ip 10.0.0.0/8=10.0.0.1", "ip =",
		"port 1", "port 1=65536", "port -1=1", "mac 1=2", "mac 02:00:00:00:00:01=x", "mac 02:00:00:00:00:00:00:01=02:00:00:00:00:01",
		"vlan 0", "vlan 4095", "vlan x",
	} {
		kind, s, _ := strings.Cut(tt, " ")
		if err := add(&Rewrite{}, kind, s); err == nil {
			t.Errorf("%s: taken", tt)
		}
	}
}
