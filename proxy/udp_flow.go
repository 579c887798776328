package proxy

import (
	"github.com/tproxyd/tproxyd/internal/sys"
)

// udpFlow is one UDP conversation: the datagrams between a client's address
// and port and the address and port that it spoke to.
type udpFlow struct {
	head
	listener *udpListener
	table    *udpTable
	peer     sys.SockAddr // the client, for replies through a socket that is not connected to it

	// fds are its own sockets; -1: none. A flow of a concrete virtual IP has
	// no client socket, its replies leave by the listener.
	fds       [2]int32
	raw       bool // replies leave by a raw socket: somebody else has the address
	inTable   bool // the client's next datagram finds it
	confirmed bool // see udpTable
	spent     bool // it has had the requests of its service; the client's next datagram begins a new flow
	ending    bool // in udpWorker.ended
	ready     [2]bool
	large     [2]bool // the sockets are set up for large datagrams in that direction
	fast      [2]bool // the socket of that leg is set up for streams

	segment    [2]int    // largest size of datagrams that were not refused as one UDP_SEGMENT send, by direction
	datagrams  [2]uint64 // by direction
	bytes      [2]uint64
	spentAt    uint64    // datagrams of the client that do not count as requests any more
	overflowed [2]uint32 // SO_RXQ_OVFL of its sockets, as last seen

	newer, older *udpFlow // in its list
}

// key is what its datagrams are found by.
func (f *udpFlow) key() addrPair { return addrPair{f.client, f.dest} }

// udpTable holds a worker's flows of one service. It outlives reloads.
//
// The flows are in two lists by the time of their last datagram, so that under
// pressure the ones are given up first that are missed least: those of the
// list unconfirmed, which have not yet seen a reply and a second datagram of
// the client. A flood of made-up sources thus only displaces itself.
type udpTable struct {
	flows map[addrPair]*udpFlow
	lists [2]udpList // unconfirmed, confirmed
	size  int        // of both
}

const (
	unconfirmed = iota
	confirmed
)

// udpList is a list of flows, the one with the latest datagram first.
type udpList struct{ newest, oldest *udpFlow }

func (l *udpList) add(f *udpFlow) {
	f.older, f.newer = l.newest, nil
	if l.newest != nil {
		l.newest.newer = f
	} else {
		l.oldest = f
	}
	l.newest = f
}

func (l *udpList) remove(f *udpFlow) {
	if f.newer != nil {
		f.newer.older = f.older
	} else {
		l.newest = f.older
	}
	if f.older != nil {
		f.older.newer = f.newer
	} else {
		l.oldest = f.newer
	}
	f.newer, f.older = nil, nil
}

// list is the list that f is in.
func (t *udpTable) list(f *udpFlow) *udpList {
	if f.confirmed {
		return &t.lists[confirmed]
	}
	return &t.lists[unconfirmed]
}

// add enters a new flow.
func (t *udpTable) add(f *udpFlow) {
	t.bind(f)
	t.list(f).add(f)
	t.size++
}

// remove takes out a flow that ends.
func (t *udpTable) remove(f *udpFlow) {
	t.unbind(f)
	t.list(f).remove(f)
	t.size--
}

// bind has the client's next datagram find f.
func (t *udpTable) bind(f *udpFlow) {
	t.flows[f.key()] = f
	f.inTable = true
}

// unbind has the client's next datagram begin a new flow. f still gets its
// replies.
func (t *udpTable) unbind(f *udpFlow) {
	if f.inTable {
		delete(t.flows, f.key())
		f.inTable = false
	}
}

// touch notes that f had a datagram just now.
func (t *udpTable) touch(f *udpFlow) {
	l := t.list(f)
	now := !f.confirmed && f.datagrams[upstream] > 0 && f.datagrams[client] > 1
	if l.newest == f && !now {
		return
	}
	l.remove(f)
	f.confirmed = f.confirmed || now
	t.list(f).add(f)
}

// oldest is the flow to give up first.
func (t *udpTable) oldest() *udpFlow {
	if f := t.lists[unconfirmed].oldest; f != nil {
		return f
	}
	return t.lists[confirmed].oldest
}
