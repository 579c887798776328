package proxy

import (
	"net/netip"

	"github.com/tproxyd/tproxyd/internal/admission"
	"github.com/tproxyd/tproxyd/internal/balance"
	"github.com/tproxyd/tproxyd/internal/eventloop"
	"github.com/tproxyd/tproxyd/internal/proxyproto"
)

// The two legs of a flow. A direction has the number of the leg it reads
// from: direction client carries what the client sends.
const (
	client   = 0
	upstream = 1
)

// state is where a flow is in its life.
type state uint8

const (
	free       state = iota // not in use
	greeting                // the client has yet to send what decides about the flow: a PROXY header, a ClientHello
	queued                  // all backends have as many flows as they may
	waiting                 // for a 4-tuple that is in use to become free
	connecting              // SYN sent to the upstream
	relaying                // both legs connected
	resetting               // one leg is gone; the other gets what is left, then RST
)

// head is what TCP and UDP flows have in common.
type head struct {
	timer eventloop.Timer
	part  *part // nil: the flow is not in use
	id    uint64
	gen   uint32 // counts the uses of this slot

	route                uint16 // of svc.Routes, from 1 on; 0: the default pool
	choice               uint16 // of svc.Backends
	counted              bool   // as a flow of its backend
	named                bool   // client comes from a PROXY header
	local                bool   // UDP: the client is on this host, if the listener tells
	policy               Source // as the service says, or what prefer-client fell back to
	tried                balance.Set
	admitted             bool  // its client may have a flow: a tap is told of it
	tapped               uint8 // the turn of the tap that was; 0: none
	backend              *backendStats
	client, dest, source endpoint // source: what the upstream sees

	admission *admission.Control // it counts as a flow of its client there
	shadows   *shadows           // nil: it is not copied

	accepted   int64 // on the loop's clock, like the following
	lastActive int64 // last byte in either direction
	drainAt    int64 // 0: not draining
}

// flow is one proxied TCP connection. It is described in full by plain values
// and its descriptors: no closure and no goroutine holds a part of it.
type flow struct {
	head
	legs [2]leg
	dirs [2]direction

	state   state
	reason  Reason
	retries uint8 // backends tried after the first
	waits   uint8 // times spent in state waiting
	ready   bool  // in worker.ready
	closer  uint8 // the leg that sent FIN first, while one direction is closed

	unproven  bool                 // the client may not send a PROXY header: its first bytes are looked at
	signature proxyproto.Signature // how much of one has come

	guarded bool // its upstream connection is in the loop guard
	settled bool // the upstream leg has its liveness options
	sampled bool // quality is what it was at the end

	connectAt int64 // the last try began; on the loop's clock, like the following
	connected int64 // 0: never
	deadline  int64 // of any state but relaying; see due
	queuedAt  int64

	prelude *prelude // while it is greeting
	quality quality

	before, behind *flow  // in its queue
	ticket         uint64 // the order in which flows came to the queues
	unacked        int    // while resetting: bytes that the leg which is left had not taken at the last look
}

// due is when a state other than relaying ends: at its deadline, or before that
// because the flow is drained.
func (f *flow) due() int64 {
	if f.drainAt != 0 {
		return min(f.deadline, f.drainAt)
	}
	return f.deadline
}

// leg is one socket of a flow.
type leg struct {
	fd       int32
	readable bool // there may be something to read
	writable bool // there may be room to write
	ending   bool // FIN or an error has come: read on after a short read
	fin      bool // FIN has come, and no error
	urgent   bool // an urgent mark has come: reads stop at it, and splice cannot pass it
	failed   bool // an error has come: the socket is dead
	wrote    bool // something was sent: Nagle could hold the next
	nodelay  bool // TCP_NODELAY is set

	// fault is the error, if a call has taken it from the socket before all
	// that the peer had sent was read. Later calls no longer tell.
	fault uint16
}

// direction carries the bytes read from one leg to the other.
type direction struct {
	pipe   *pipe   // lent while spliced bytes are in flight
	buf    *buffer // lent while copied bytes are in flight
	copied uint64
	moved  uint64 // spliced
	full   uint8  // copy: reads in a row that found a stream; splice: wake-ups in a row that did not
	stream bool   // carried by splice
	eof    bool   // the source has sent FIN
	closed bool   // and FIN was passed on
}

func (d *direction) bytes() uint64 { return d.copied + d.moved }

// held is what was copied and not yet written.
func (d *direction) held() []byte {
	if d.buf == nil {
		return nil
	}
	return d.buf.rest()
}

// pending reports whether bytes read are not yet written.
func (d *direction) pending() bool {
	return d.buf != nil || d.pipe != nil && d.pipe.held > 0
}

// path names how the direction's bytes went: splice as soon as it was used.
func (d *direction) path() string {
	switch {
	case d.moved > 0:
		return pathNames[pathSplice]
	case d.copied > 0:
		return pathNames[pathCopy]
	}
	return "none"
}

func (f *head) common() *head { return f }

// tag is the epoll tag of one leg of f.
func (f *head) tag(side int) eventloop.Tag {
	return eventloop.Tag{Slot: f.timer.Slot<<1 | uint32(side), Gen: f.gen}
}

// to is f's upstream, as target.
func (f *head) to() endpoint {
	if f.part.svc.original() {
		return f.dest
	}
	return f.part.svc.targets[f.choice]
}

// target is the address of f's upstream.
func (f *head) target() netip.AddrPort {
	if f.part.svc.original() {
		return f.dest.addrPort()
	}
	return f.part.svc.Backends[f.choice].Addr
}
