// Package wire is what the benchmarks of frames need: the frames, the plain ways
// of sending them, and the count of those that a capture file holds.
//
// All frames are UDP over IPv4 from one Ethernet address, by which they are told
// from what else is on the wire, to one that no interface has, so that whoever
// receives them drops them at once.
package wire
