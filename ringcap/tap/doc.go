// Package tap captures what a proxy relays, and knows the flows: both legs of
// a flow carry its id, its service and its backend.
//
//	interfaces ─► ringcap.Ring ─► reader ─► sorter ─┬─► capture ─► files
//	                                  │             ├─► capture ─► files
//	 proxy ── Open, Dial, End ─► registry           └─► live viewer
//	interfaces ─► ringcap.Ring ─► ringcap.Recorder ─── dump ─► file, viewer
//
// Invariants:
//   - Who relays never waits: Open, Dial, End, Event and Trigger append to a
//     bounded list and return.
//   - A ring is never held by a sink that is slow. A sink loses the blocks that
//     the ring is about to need (see ringcap.Spare), which is counted (sink
//     drops) and stated in its file or stream. Every packet that the
//     kernel handed over to a running sink is written, or in its sink drops.
//   - A packet whose flow is not known yet waits for it (Config.Settle): source
//     ports are the kernel's choice in connect(2), when the SYN has left.
//   - Apply makes a whole configuration run or changes nothing. A capture that
//     is the same in both goes on without a gap.
//   - Counts are cumulative over reloads and over rings that come and go.
//   - After Close no goroutine and no descriptor is left, and all files are
//     complete.
//
// Rings for captures and viewers are open only while there is one. The recorder
// has rings of its own, which hold its history.
//
// References: packet(7); draft-ietf-opsawg-pcapng.
package tap
