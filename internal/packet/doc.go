// Package packet knows the headers of Ethernet frames as far as sending them
// takes: where they begin, and how their checksums are computed or adjusted.
// It is pure and allocates nothing.
//
// Every offset in a [Layout] has been checked against the frame it was parsed
// from, so code that has a Layout may slice that frame by it. A Layout of a
// frame that has been cut short says so (Truncated) and never reaches beyond
// what is there.
//
// References: IEEE 802.1Q for tags, RFC 791 and RFC 8200 for IP, RFC 1071 and
// RFC 1624 for checksums, RFC 768 for the UDP checksum that is not there.
package packet
