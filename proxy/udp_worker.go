package proxy

import (
	"sync/atomic"

	"github.com/tproxyd/tproxyd/internal/eventloop"
	"github.com/tproxyd/tproxyd/internal/sys"
	"golang.org/x/sys/unix"
)

const (
	udpFlows = 1 << 29 // slots of timers from here on are UDP flows
	// Tags of UDP flows begin at 1 << 30, as they hold the leg in the lowest
	// bit, and those of UDP listeners behind those of TCP listeners.
	udpTags      = udpFlows << 1
	udpListeners = listenerSlots | udpTags

	udpSlots  = 64 // datagrams, or runs of them, that one call takes
	udpRounds = 8  // such calls on one socket before others have their turn
	udpEvents = unix.EPOLLIN | unix.EPOLLET&0xffffffff
)

// udpWorker is the part of a worker that serves UDP.
type udpWorker struct {
	*worker
	listeners []*udpListener
	flows     slab[udpFlow, *udpFlow]
	tables    map[*serviceStats]*udpTable
	ready     []readyLeg // have more to read than their turn allowed
	scratch   []readyLeg
	ended     []*udpFlow // have got the replies that their service expects

	rx   *sys.Receiver // what clients send; nil until there is a UDP service
	out  outbox        // and where it goes
	back *sys.Receiver // what upstreams send: its slots fill up until home is flushed
	used int           // so many of them are in use
	home outbox
	one  *sys.Sender // for what is sent singly

	wrapped []byte // datagrams in out that have got PROXY headers

	raws    [2]*sys.RawUDP // IPv4, IPv6; made when first used, as icmpOut
	icmpOut *sys.ICMP
	asking  bool // another worker is to make room
	asked   int  // how often

	icmpLeft int   // ICMP errors that may still be sent
	icmpFrom int64 // since when
}

// readyLeg is a leg that was not read to the end.
type readyLeg struct {
	f    *udpFlow
	side int
}

// udpListener is one worker's socket on a listen address.
type udpListener struct {
	fd      int
	index   int // in udpWorker.listeners
	key     listenKey
	addr    endpoint
	part    *part
	table   *udpTable
	flows   *atomic.Int64 // that it and the other workers' listeners on the address serve
	lost    uint32        // SO_RXQ_OVFL as last seen
	closing bool          // its address is no longer configured: no new flows
	held    bool          // but may be soon again: it is not closed
}

// start makes what UDP needs, at the first UDP service.
func (u *udpWorker) start() {
	if u.rx != nil {
		return
	}
	u.rx, u.back = sys.NewReceiver(udpSlots), sys.NewReceiver(udpSlots)
	u.out.sender, u.home.sender, u.one = sys.NewSender(udpSlots), sys.NewSender(udpSlots), sys.NewSender(1)
	u.out.fd, u.home.fd = -1, -1
	u.tables = map[*serviceStats]*udpTable{}
	u.flows.base = udpFlows
}

// event handles events of a UDP socket.
func (u *udpWorker) event(tag eventloop.Tag, events uint32) {
	if tag.Slot >= udpListeners {
		if l := u.listeners[tag.Slot-udpListeners]; l != nil {
			if events&unix.EPOLLERR != 0 {
				u.readListenerErrors(l)
			}
			u.serve(l)
		}
		return
	}
	f := u.flows.at(tag.Slot >> 1)
	if f.gen != tag.Gen || f.part == nil {
		return // ended earlier in this batch
	}
	side := int(tag.Slot & 1)
	if events&unix.EPOLLERR != 0 {
		u.readErrors(f, side)
	}
	if f.part != nil {
		u.receive(f, side) // also after an error: it may have cut a batch short
	}
}

// receive passes on what one of f's own sockets has got.
func (u *udpWorker) receive(f *udpFlow, side int) {
	if side == upstream {
		u.fromUpstream(f)
	} else {
		u.fromClientSocket(f)
	}
}

// turn ends a batch of events: replies leave, and sockets that were not read
// to the end go on. It reports whether there is more of that.
func (u *udpWorker) turn() bool {
	if len(u.ready) > 0 {
		u.ready, u.scratch = u.scratch[:0], u.ready
		for _, r := range u.scratch {
			// A flow that ended meanwhile has lost the mark.
			if r.f.ready[r.side] {
				r.f.ready[r.side] = false
				u.receive(r.f, r.side)
			}
		}
	}
	u.flush(&u.home)
	for _, f := range u.ended {
		// One that ended otherwise has lost the mark.
		if f.ending {
			if f.ending = false; f.answered() {
				u.end(f, Answered)
			}
		}
	}
	u.ended = u.ended[:0]
	return len(u.ready) > 0
}

// again puts a leg on the list of those that have more to read.
func (u *udpWorker) again(f *udpFlow, side int) {
	if !f.ready[side] {
		f.ready[side] = true
		u.ready = append(u.ready, readyLeg{f, side})
	}
}

// serve takes what has come to a listener. It is level-triggered: what is left
// is announced again.
func (u *udpWorker) serve(l *udpListener) {
	for range udpRounds {
		n, e := u.rx.Receive(l.fd, 0)
		if e == unix.EINTR {
			continue
		}
		if e != 0 {
			return
		}
		u.fromClients(l, n)
		if n < udpSlots {
			return
		}
	}
}

// fromClients passes on the first n messages of u.rx, which came to l.
func (u *udpWorker) fromClients(l *udpListener, n int) {
	var f *udpFlow
	var last addrPair
	var why drop
	for i := range n {
		c := u.rx.Control(i)
		l.lost = l.part.shard.udp.overflow(l.lost, &c)
		if c.Truncated {
			l.part.shard.udp.dropped[dropTruncated].Add(1)
			continue
		}
		key := addrPair{endpointOf(u.rx.From(i)), l.addr}
		if c.HasDest {
			key.to = endpointOf(&c.Dest)
		}
		data := u.rx.Data(i)
		for {
			part := data
			if (l.part.svc.Requests > 0 || l.part.svc.AcceptProxy != ProxyOff) && c.Segment > 0 && c.Segment < len(data) {
				part = data[:c.Segment] // each may be the last of its flow
			}
			whole := len(part)
			if l.part.svc.AcceptProxy != ProxyOff {
				key.from = endpointOf(u.rx.From(i))
				if part, why = u.unwrap(l, u.rx.From(i), &key, part); why != dropNone {
					l.part.shard.udp.dropped[why].Add(1)
					if data = data[whole:]; len(data) == 0 {
						break
					}
					continue
				}
			}
			if f == nil || key != last || !f.inTable || f.spent {
				u.flush(&u.out)
				f, why = u.find(l, key, u.rx.From(i), &c)
				last = key
			}
			if f != nil {
				if l.part.svc.AcceptProxy != ProxyOff {
					f.peer = *u.rx.From(i) // a client's next datagram may come by another port of its proxy
				}
				u.toUpstream(f, part, &c)
			} else {
				l.part.shard.udp.dropped[why].Add(count(len(part), c.Segment))
			}
			if data = data[whole:]; len(data) == 0 {
				break
			}
		}
	}
	u.flush(&u.out)
}
