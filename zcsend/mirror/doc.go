// Package mirror sends a copy of the packets that a ring captured to somebody
// who looks at them: out of a port of this host (SPAN), or encapsulated to a
// collector (see zcsend/encap).
//
// A super-frame leaves a port whole, straight from the ring's memory, and is cut
// by the device or at the last moment by the kernel; where it has to be cut
// before (snap length, collector) it is cut as the kernel would. VLAN tags are
// put back and checksums that a card would have computed are computed.
//
// Invariants:
//   - Nobody who sends or receives waits for a mirror. What it cannot pass on is
//     dropped as whole frames, each counted once with a [Reason]: Seen + Cut of
//     [Stats] are Frames and all that was dropped, but for what the ring dropped,
//     which was never seen.
//   - A port that takes nothing is waited for so long that its bursts pass, and
//     then not any more until it takes something.
//   - A mirror does not see what it sends: a port is another interface than those
//     that are mirrored, and [Config.Exclusion] keeps the packets to a collector
//     out of the rings.
//
// The kernel can do the same for whole interfaces or by address, by tc(8): see
// [Install].
//
// References: packet(7); linux/virtio_net.h; raw(7), IP_HDRINCL; tc-mirred(8).
package mirror
