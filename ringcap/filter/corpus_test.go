package filter_test

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
)

var (
	addrs4 = []string{"198.18.1.2", "198.18.1.3", "198.18.2.2", "203.0.113.10", "10.0.0.0"}
	addrs6 = []string{"2001:db8:1::2", "2001:db8:1::3", "2001:db8:2::2", "2001:db9::1"}
	ports  = []uint16{53, 80, 443, 8080, 8443, 40000}
)

func pick[T any](r *rand.Rand, all []T) T { return all[r.IntN(len(all))] }

// corpus is packets of every sort, long enough that no load goes past the end,
// where the order of tests would show.
func corpus(r *rand.Rand, n int) [][]byte {
	all := make([][]byte, n)
	for i := range all {
		p := make([]byte, 12, 256)
		for range []int{0, 0, 0, 1, 1, 2}[r.IntN(6)] {
			p = binary.BigEndian.AppendUint16(p, pick(r, []uint16{0x8100, 0x8100, 0x88a8, 0x9100}))
			p = binary.BigEndian.AppendUint16(p, pick(r, []uint16{5, 0x6005, 100, 4095, 0}))
		}
		switch r.IntN(8) {
		case 0, 1, 2:
			p = ipv4(r, append(p, 0x08, 0x00))
		case 3, 4, 5:
			p = ipv6(r, append(p, 0x86, 0xdd))
		case 6:
			p = append(p, pick(r, [][]byte{{0x08, 0x06}, {0x80, 0x35}})...)
			p = append(p, make([]byte, 14)...)
			p = append(p, netip.MustParseAddr(pick(r, addrs4)).AsSlice()...)
			p = append(p, make([]byte, 6)...)
			p = append(p, netip.MustParseAddr(pick(r, addrs4)).AsSlice()...)
		default:
			p = append(p, pick(r, [][]byte{{0x88, 0xb5}, {0x00, 0x40}, {0x88, 0xcc}})...)
		}
		p = append(p, make([]byte, 140+r.IntN(100))...)
		all[i] = p
	}
	return all
}

func ipv4(r *rand.Rand, p []byte) []byte {
	words := pick(r, []int{5, 5, 5, 6, 15})
	h := make([]byte, 4*words)
	h[0] = 0x40 | byte(words)
	binary.BigEndian.PutUint16(h[6:], pick(r, []uint16{0, 0x4000, 0x2000, 0x2001, 100}))
	h[9] = pick(r, []byte{6, 6, 17, 17, 1, 132, 58, 47})
	copy(h[12:], netip.MustParseAddr(pick(r, addrs4)).AsSlice())
	copy(h[16:], netip.MustParseAddr(pick(r, addrs4)).AsSlice())
	return appendPorts(r, append(p, h...))
}

func ipv6(r *rand.Rand, p []byte) []byte {
	h := make([]byte, 40)
	h[0], h[6] = 0x60, pick(r, []byte{6, 6, 17, 17, 58, 132, 44, 0, 1})
	copy(h[8:], netip.MustParseAddr(pick(r, addrs6)).AsSlice())
	copy(h[24:], netip.MustParseAddr(pick(r, addrs6)).AsSlice())
	p = append(p, h...)
	if h[6] == 44 {
		p = append(p, pick(r, []byte{6, 17, 58}), 0, 0, 0, 0, 0, 0, 0)
	}
	return appendPorts(r, p)
}

func appendPorts(r *rand.Rand, p []byte) []byte {
	p = binary.BigEndian.AppendUint16(p, pick(r, ports))
	return binary.BigEndian.AppendUint16(p, pick(r, ports))
}

// written are expressions that people use, and the corners of the language.
var written = []string{
	"", "ip", "ip6", "arp", "rarp", "tcp", "udp", "sctp", "icmp", "icmp6",
	"host 198.18.1.2", "src host 198.18.1.2", "dst host 198.18.1.2", "src 198.18.1.2", "dst 2001:db8:1::2",
	"198.18.1.2", "2001:db8:1::2", "src or dst host 198.18.1.2", "src and dst host 198.18.1.2", "dst or src host 198.18.1.2",
	"ip host 198.18.1.2", "arp host 198.18.1.2", "rarp host 198.18.1.2", "ip6 host 2001:db8:1::2", "ip src 198.18.1.2",
	"arp src host 198.18.1.2", "arp dst 198.18.1.2", "host 2001:db8:1::2", "src host 2001:db8:1::3",
	"net 198.18.0.0/15", "net 198.18.1.0/24", "net 198.18", "net 198.18.1", "net 10", "net 10.0.0.0", "net 198.18.1.0",
	"src net 198.18.1.0/24", "dst net 203.0.113.0/24", "net 198.18.0.0 mask 255.254.0.0", "net 198.18.1.2/32", "net 0.0.0.0/0",
	"net 2001:db8::/32", "net 2001:db8:1::/48", "src net 2001:db8::/31", "ip6 net 2001:db8:2::/64", "net 2001:db8:1::2/128",
	"ip net 198.18.0.0/16", "arp net 198.18.0.0/16", "net ::/0", "net 2001:db8::/33", "net 2001:db8:1::/97",
	"port 80", "src port 80", "dst port 443", "tcp port 80", "udp port 53", "tcp src port 8443", "udp dst port 53", "sctp port 80",
	"src and dst port 80", "src or dst port 80", "tcp src or dst port 80", "portrange 80-443", "tcp portrange 80-8080",
	"udp src portrange 1-100", "dst portrange 443-443", "portrange 8080-443", "portrange 80", "port 0", "port 65535",
	"port 80 or 443", "port (80 or 443)", "tcp port 80 or 443 or 8443", "host 198.18.1.2 or 198.18.1.3",
	"not host 198.18.1.2 and 198.18.1.3", "host (198.18.1.2 or 2001:db8:1::2)", "net 198.18.1.0/24 or 203.0.113.0/24",
	"ip proto 6", "ip6 proto 17", "ip proto 47", "ip6 proto 58", "ip6 proto 0",
	"vlan", "vlan 5", "vlan 100", "vlan 4095", "vlan and ip", "vlan 5 and tcp port 80", "vlan and vlan", "vlan 5 and vlan 100 and ip",
	"not vlan", "vlan or ip", "ip or vlan", "(vlan and ip6) or arp", "vlan and not tcp", "vlan and port 80 or 443", "vlan 0",
	"not tcp", "not not tcp", "!tcp", "! udp port 53", "not (tcp or udp)", "not port 80", "not (host 198.18.1.2 and port 80)",
	"tcp and port 80", "tcp && port 80", "tcp || udp", "tcp or udp and port 53", "udp and port 53 or tcp", "(tcp)", "((tcp))",
	"tcp and not port 80 and not port 443", "ip and tcp", "ip6 and udp", "tcp and ip6 or icmp", "host 198.18.1.2 and not arp",
	"tcp and (host 198.18.1.2 or host 198.18.1.3) and (port 80 or port 443)", "src host 198.18.1.2 and dst port 443",
	"less 200", "greater 220", "less 200 and tcp", "not greater 230", "not less 190", "greater 0",
	"(host 198.18.1.2 and port 40000) or (host 2001:db8:1::2 and port 40000)", "tcp src port 80 or udp dst port 53",
	"ip host 198.18.1.2 and tcp port 443", "icmp or icmp6", "arp or rarp", "not ip and not ip6",
}

// generated makes an expression out of the grammar.
func generated(r *rand.Rand, depth int) string {
	if depth == 0 || r.IntN(4) == 0 {
		return primitive(r)
	}
	left, right := generated(r, depth-1), generated(r, depth-1)
	s := left + pick(r, []string{" and ", " or ", " && ", " || ", " and not "}) + right
	if r.IntN(2) == 0 {
		s = pick(r, []string{"", "not ", "!"}) + "(" + s + ")"
	}
	return s
}

func primitive(r *rand.Rand) string {
	dir := pick(r, []string{"", "", "src ", "dst ", "src or dst ", "src and dst "})
	number := func() string { return []string{"53", "80", "443", "8080", "8443", "40000", "1"}[r.IntN(7)] }
	switch r.IntN(9) {
	case 0:
		return pick(r, []string{"tcp", "udp", "icmp", "icmp6", "ip", "ip6", "arp", "sctp"})
	case 1, 2:
		return dir + "host " + pick(r, append(addrs4[:4:4], addrs6...))
	case 3:
		return dir + "net " + pick(r, []string{"198.18.0.0/15", "198.18.1.0/24", "2001:db8::/32", "2001:db8:1::/48", "203.0.113"})
	case 4, 5:
		return pick(r, []string{"", "tcp ", "udp "}) + dir + "port " + number()
	case 6:
		return pick(r, []string{"", "tcp ", "udp "}) + dir + "portrange " + number() + "-" + number()
	case 7:
		return pick(r, []string{"vlan", "vlan 5", "less 200", "greater 220", "not vlan 100"})
	default:
		return pick(r, []string{"ip ", "arp "}) + dir + "host " + pick(r, addrs4)
	}
}
