// Package replay reads capture files and sends their frames again: at the
// recorded speed, a multiple of it, a fixed rate or as fast as it goes, with
// addresses, ports and VLANs rewritten by simple maps.
//
// It knows nothing of sockets or the clock; whoever runs it brings a [Sender]
// and may bring a [Clock].
//
// Files may come from anybody. pcapgo reads them, behind a [Reader] that bounds
// what it may hold: a packet has at most 256 KiB (libpcap's MAXIMUM_SNAPLEN), a
// pcapng block 1 MiB, a section 1,024 interfaces; blocks that are not about
// packets are passed over. gzip and zstd are found by their first bytes; a zstd
// window is at most 8 MiB.
//
// References: the pcapng and pcap drafts of the IETF's opsawg, RFC 1952, RFC
// 8878.
package replay
