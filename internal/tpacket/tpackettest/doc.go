// Package tpackettest plays the kernel's part of a receive ring of version 3,
// for tests: it fills blocks as tpacket_rcv does and hands them over by their
// status word.
package tpackettest
