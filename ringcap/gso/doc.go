// Package gso cuts super-frames into what the wire would carry.
//
// A tap sees what the stack hands to the card: frames of up to 64 KiB and more
// that the card, or the last step in software, will cut (TSO, USO). Analysers that
// count packets or look for retransmissions want the pieces. The pieces are made
// as the kernel makes them: lengths, sequence numbers, IPv4 ids that count up,
// FIN and PSH on the last only, CWR on the first only, all checksums computed.
//
// References: net/ipv4/tcp_offload.c (tcp_gso_segment), net/ipv4/udp_offload.c
// (__udp_gso_segment), net/ipv4/af_inet.c (inet_gso_segment); RFC 3168, 6.1.2.
package gso
