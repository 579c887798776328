package zcsend

import "sync/atomic"

// Stats counts frames. Every frame that was given to Send or Commit, or that
// Reserve refused, is in exactly one of Sent, InFlight, Queued and Refused.
type Stats struct {
	Sent     uint64 // taken by the kernel, and no longer read by it
	InFlight uint64 // in a ring, and still read by the kernel
	Queued   uint64 // committed and not flushed
	Refused  uint64
	Bytes    uint64 // of frames that are sent or in flight, without headers of ours
	Waits    uint64 // how often a call had to wait for room
}

// counters have one writer, the Sender, and any reader.
type counters struct {
	taken, bytes, refused, waits atomic.Uint64
	queued, inFlight             atomic.Uint64
}

func (c *counters) stats() Stats {
	s := Stats{
		Queued: c.queued.Load(), Refused: c.refused.Load(),
		Bytes: c.bytes.Load(), Waits: c.waits.Load(),
	}
	// What is in flight was counted as taken before, so this never goes below 0.
	s.InFlight = c.inFlight.Load()
	s.Sent = c.taken.Load() - s.InFlight
	return s
}
