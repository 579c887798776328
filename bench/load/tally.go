package load

// tally counts the datagrams of one epoch: each of them once.
type tally struct {
	flows []flowTally

	received   uint64 // different ones
	duplicates uint64
	reordered  uint64 // that came behind one with a higher number
	seen       int    // flows with at least one
	first      int64  // when the first and the last came
	last       int64
}

// flowTally has a bit for each number that came. What is lost is not a counter
// here: it is what the sender sent and nobody counted.
type flowTally struct {
	bits  []uint64
	above uint64 // one above the highest number
}

// add counts the datagram with a number of a flow, both of which are within the
// bounds of parseDatagram.
func (t *tally) add(flow uint32, seq uint64, now int64) {
	for uint32(len(t.flows)) <= flow {
		t.flows = append(t.flows, flowTally{})
	}
	f := &t.flows[flow]
	word, bit := seq/64, uint64(1)<<(seq%64)
	for uint64(len(f.bits)) <= word {
		f.bits = append(f.bits, 0)
	}
	if f.bits[word]&bit != 0 {
		t.duplicates++
		return
	}
	f.bits[word] |= bit
	if t.received == 0 {
		t.first = now
	}
	t.last = now
	t.received++
	if f.above == 0 {
		t.seen++
	}
	if seq < f.above {
		t.reordered++
	} else {
		f.above = seq + 1
	}
}

// report copies the counts.
func (t *tally) report(r *DatagramReport) {
	r.Received, r.Duplicates, r.Reordered, r.Flows = t.received, t.duplicates, t.reordered, t.seen
	r.FirstReceivedNS, r.LastReceivedNS = t.first, t.last
}
