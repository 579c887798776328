// Package pcapng writes the capture format of Wireshark and tcpdump, without
// allocating and in three ways from a block of a ring:
//
//	Copy     packets are copied out of the block to a buffer
//	Compact  packets are moved together within the block
//	InPlace  no packet moves: the headers that the kernel put between packets
//	         become the format's own, what is left over a custom option
//
// All three carry the same packets. A block that was compacted or turned in
// place can only be written and released, not walked again. In place costs about 150 bytes
// a packet in the file where the others cost 60: it is for payload, not for
// headers.
//
// What is written: times in nanoseconds; direction and reception type in
// epb_flags; a flow id in epb_packetid, so that frame.packet_id == N in
// Wireshark shows one flow, on all interfaces; VLAN tags put back into the
// packet; the segment size of super-frames in a custom option (see GSO). The byte order is the
// machine's, which readers learn from the section header.
//
// Custom options carry the number 32473, which RFC 5612 sets aside for
// documentation; readers that do not know them skip them.
//
// Reference: draft-ietf-opsawg-pcapng.
package pcapng
