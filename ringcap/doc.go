// Package ringcap captures packets through a receive ring of packet(7) in
// version 3.
//
// What is copied when: the kernel copies each packet once, from its buffer into
// the ring, up to the length that the filter returns. This package adds no copy:
// a [Packet] is a view into the ring. The encodings of ringcap/pcapng add one
// more (Copy), one within the ring (Compact) or none (InPlace); writing the
// result to a file copies into the page cache. So this is not zero-copy
// capture, and on Linux there is none by packet sockets.
//
// Invariants:
//   - A block is the unit: it is handed over by the kernel, lent to the body of
//     the loop over [Ring.Blocks], and given back after it. [Block.Retain] keeps
//     it longer.
//   - A ring whose blocks are all held freezes: the kernel drops, counts, and
//     goes on when the next block in order is free. Nothing is ever overwritten.
//   - Who sends or receives the packets never waits for the reader.
//   - Stats are exact: Packets - Drops = Taken, when Blocks has ended by its
//     context. A loop that is left by break may come back.
//   - The reader waits in the runtime's poller; a ring has no thread.
//   - An interface that goes down, or is deleted and comes back under its name,
//     is waited for.
//   - CAP_NET_RAW is all that is needed, in the user namespace that owns the
//     network namespace, and only in [Open] and when an interface comes back.
//
// What a packet looks like is the host's view, not the wire's: super-frames of
// up to 64 KiB, checksums not yet computed, VLAN tags taken out. [Packet.VNet]
// and [Packet.VLAN] tell.
//
// References: packet(7); Documentation/networking/packet_mmap.rst;
// net/packet/af_packet.c.
package ringcap
