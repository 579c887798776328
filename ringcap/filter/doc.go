// Package filter compiles tcpdump's filter language to classic BPF, as far as
// it is in everybody's fingers:
//
//	host net port portrange, src dst, ip ip6 arp rarp tcp udp sctp icmp icmp6,
//	ip proto N, ip6 proto N, vlan [N], less N, greater N,
//	and or not (&& || !), parentheses, and "port 80 or 443"
//
// What it means is what libpcap makes of it, surprises included:
//   - "and" and "or" bind alike, from left to right.
//   - "vlan" moves everything to its right behind the tag, also over an "or".
//   - "host A" is IPv4, ARP and RARP, or IPv6.
//   - "port N" does not see later fragments and IPv6 extension headers.
//
// Addresses are numbers: a name would have to be resolved, and a filter
// that waits for DNS is none. Ports are numbers, too.
//
// An error says at which byte of the expression it is.
//
// References: pcap-filter(7); libpcap's gencode.c and grammar.y; the classic
// BPF of Documentation/networking/filter.rst.
package filter
