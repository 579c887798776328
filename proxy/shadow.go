package proxy

import (
	"github.com/cespare/xxhash/v2"
	"github.com/tproxyd/tproxyd/internal/eventloop"
)

// shadows are the copies that are made of a flow, by direction.
type shadows struct{ copies [2]*shadow }

// shadow is the copy of one direction of a flow: a connection, or a UDP
// socket, to the service's shadow. It outlives the flow for a while.
//
// What the shadow has yet to take is in buf and, behind that, in pipe. Bytes
// are added once, when they have been read for the flow and before they are
// passed on; either all of a read is added or the copy is given up. So what
// the shadow gets is always a beginning of the stream, and only an ordinary
// end of the flow makes it end in FIN.
type shadow struct {
	timer     eventloop.Timer
	gen       uint32 // counts the uses of this slot
	fd        int32
	side      uint8 // the direction
	live      bool
	datagrams bool
	writable  bool // connected, and there may be room
	connected bool
	ended     bool // nothing more is added
	shut      bool // FIN is sent
	fin       bool // its answers are over
	detached  bool // the flow is gone
	compare   bool
	more      bool // in shadowWorker.ready

	owner *shadows
	svc   *service
	stats *shadowShard
	buf   *buffer
	pipe  *pipe

	received uint64 // datagrams of the shadow
	expected uint64 // and of the upstream
	answers  digest
	real     digest
}

// pending reports whether there is something the shadow has yet to take.
func (s *shadow) pending() bool { return s.buf != nil || s.pipe != nil && s.pipe.held > 0 }

// digest stands for what was answered.
type digest struct {
	bytes  uint64
	sum    uint64         // of the hashes of datagrams, whose order does not count
	stream *xxhash.Digest // nil: of datagrams
}

// add takes in a datagram, or the next piece of a stream.
func (d *digest) add(b []byte) {
	d.bytes += uint64(len(b))
	if d.stream != nil {
		_, _ = d.stream.Write(b) // never fails
	} else {
		d.sum += xxhash.Sum64(b)
	}
}

// equal reports whether d and o were made of the same.
func (d *digest) equal(o *digest) bool {
	return d.bytes == o.bytes && d.sum == o.sum && (d.stream == nil || d.stream.Sum64() == o.stream.Sum64())
}

// compared reports whether what is read from leg side has to be seen.
func (h *head) compared(side int) bool {
	if h.shadows == nil || side != upstream {
		return false
	}
	s := h.shadows.copies[client]
	return s != nil && s.compare
}
