package proxy

import (
	"net/netip"
	"time"

	"github.com/gaissmai/bart"
	"github.com/tproxyd/tproxyd/internal/accesslog"
	"github.com/tproxyd/tproxyd/internal/admission"
	"github.com/tproxyd/tproxyd/internal/balance"
	"github.com/tproxyd/tproxyd/internal/clienthello"
	"github.com/tproxyd/tproxyd/internal/eventloop"
	"github.com/tproxyd/tproxyd/internal/sys"
	"golang.org/x/sys/unix"
)

const (
	flowEvents    = unix.EPOLLIN | unix.EPOLLOUT | unix.EPOLLRDHUP | unix.EPOLLPRI | unix.EPOLLET&0xffffffff
	listenerSlots = 1 << 31 // tags from here on are listeners

	workerShift = 56 // a flow's id has its worker's above so many bits

	recordsEvery = 100 * time.Millisecond // a record waits at most this long
	trimEvery    = 10 * time.Second       // idle pipes are closed that often
)

// worker is one thread of the data plane.
type worker struct {
	id    int
	proxy *Proxy
	loop  *eventloop.Loop
	stats *workerStats

	listeners []*listener
	flows     slab[flow, *flow]
	udp       udpWorker
	shadow    shadowWorker
	queues    map[*serviceStats]map[queueKey]*queue
	woken     []*queue // have flows that may go on
	nextID    uint64
	ready     []*flow // have more to do than a turn's budget allowed
	scratch   []*flow

	buf   [bufferSize]byte
	info  unix.TCPInfo
	addr  sys.SockAddr
	pipes pipePool
	bufs  bufferPool

	preludes []*prelude // not in use
	header   []byte     // see proxyHeader
	flowID   [16]byte

	tapping

	records  []accesslog.Record
	draining int64 // the time at which flows are cut; 0: not draining

	resume  eventloop.Timer // accepting goes on
	flush   eventloop.Timer // records are handed over
	trim    eventloop.Timer // idle pipes are closed
	blocked bool            // accepting is paused, whatever the listener
	backoff bool            // and it is for want of descriptors or memory
}

// part is a worker's part of a service.
type part struct {
	svc      *service
	pickers  [][poolCount]*balance.Selector // by route
	queues   [][poolCount]*queue            // by route; of TCP
	backends []*backendStats                // by index in svc.Backends; the one of the original destination if there are none
	shard    *shard
}

// service is a configured service and its counters. It is not changed while
// flows use it; a reload makes a new one.
type service struct {
	Service
	stats   *serviceStats
	targets []endpoint // the addresses of Backends
	pool    *balance.Pool
	split   [][poolCount]*balance.View // of pool, by route
	hashes  bool                       // the choice goes by the flow's addresses
	mark    uint32                     // SO_MARK of upstream sockets
	records bool

	admission *admission.Control // nil: everybody is admitted
	trusted   bart.Lite          // who may send PROXY headers
	table     *clienthello.Table // of Routes

	noDefault bool // only routes have backends
}

// listener is one listening socket of a worker.
type listener struct {
	fd    int
	index int // in worker.listeners
	addr  netip.AddrPort
	part  *part
	open  bool // registered with epoll
}

func newWorker(id int, p *Proxy) (*worker, error) {
	loop, err := eventloop.New()
	if err != nil {
		return nil, err
	}
	stats := &workerStats{}
	w := &worker{
		id:     id,
		queues: map[*serviceStats]map[queueKey]*queue{},
		proxy:  p,
		loop:   loop,
		stats:  stats,
		pipes:  pipePool{open: sys.NewPipe, stats: stats},
		bufs:   bufferPool{stats: stats},
		// Ids grow by one per flow and begin at the time in units of 256 ns, so
		// that they do not repeat after a restart.
		nextID: uint64(id)<<workerShift | uint64(time.Now().UnixNano())>>8&(1<<workerShift-1),
	}
	w.udp.worker, w.shadow.worker = w, w
	w.resume.Slot, w.flush.Slot, w.trim.Slot = listenerSlots, listenerSlots+1, listenerSlots+2
	return w, nil
}

// run serves until the loop is stopped.
func (w *worker) run() error {
	err := w.loop.Run(w)
	w.handOver()
	w.shadow.stop()
	w.pipes.trim()
	w.udp.stop()
	return err
}

// Event implements eventloop.Handler.
func (w *worker) Event(tag eventloop.Tag, events uint32) {
	if tag.Slot&udpTags != 0 {
		w.udp.event(tag, events)
		return
	}
	if tag.Slot >= listenerSlots {
		if l := w.listeners[tag.Slot-listenerSlots]; l != nil {
			w.accept(l)
		}
		return
	}
	if tag.Slot >= shadowTags {
		w.shadow.event(tag, events)
		return
	}
	f := w.flows.at(tag.Slot >> 1)
	if f.gen != tag.Gen || f.state == free {
		return // closed earlier in this batch
	}
	side := int(tag.Slot & 1)
	l := &f.legs[side]
	if events&(unix.EPOLLIN|unix.EPOLLRDHUP|unix.EPOLLHUP|unix.EPOLLERR|unix.EPOLLPRI) != 0 {
		l.readable = true
	}
	if events&(unix.EPOLLRDHUP|unix.EPOLLHUP|unix.EPOLLERR) != 0 {
		l.ending = true
		l.fin = events&(unix.EPOLLRDHUP|unix.EPOLLERR) == unix.EPOLLRDHUP
	}
	if events&unix.EPOLLERR != 0 {
		l.failed = true
	}
	if events&unix.EPOLLPRI != 0 {
		l.urgent = true
	}
	if events&(unix.EPOLLOUT|unix.EPOLLHUP|unix.EPOLLERR) != 0 {
		l.writable = true
	}
	w.advance(f, side, events)
}

// advance takes f on after events on the leg side.
func (w *worker) advance(f *flow, side int, events uint32) {
	switch f.state {
	case relaying:
		if events&unix.EPOLLERR != 0 && f.dirs[side].eof {
			// Nothing is read from this leg any more, so only SO_ERROR tells.
			if e := sys.SocketError(int(f.legs[side].fd)); e != 0 {
				w.lostLeg(f, side, e)
				return
			}
		}
		w.relay(f)
	case connecting:
		if side == upstream {
			w.connectEvent(f, events)
			return
		}
		w.clientBeforeConnect(f, events)
	case greeting:
		w.greet(f)
	case queued, waiting:
		w.clientBeforeConnect(f, events)
	case resetting:
		w.finishReset(f)
	case free:
	}
}

// clientBeforeConnect notices a client that gives up before its upstream is
// there. A FIN is no reason: what it sent is still to be delivered.
func (w *worker) clientBeforeConnect(f *flow, events uint32) {
	if events&unix.EPOLLERR != 0 {
		w.end(f, ClientAbort)
	}
}

// Expired implements eventloop.Handler.
func (w *worker) Expired(t *eventloop.Timer) {
	switch t {
	case &w.resume:
		w.backoff = false
		w.resumeAccepting()
	case &w.flush:
		w.handOver()
	case &w.trim:
		w.pipes.trim()
	default:
		switch {
		case t.Slot >= shadowTimers:
			w.shadow.expired(w.shadow.all[t.Slot-shadowTimers])
		case t.Slot >= udpFlows:
			w.udp.expired(w.udp.flows.at(t.Slot))
		default:
			w.flowExpired(w.flows.at(t.Slot))
		}
	}
}

// Turn implements eventloop.Handler: flows that have spent their budget go on.
func (w *worker) Turn() bool {
	w.serveQueues()
	more := w.udp.turn()
	more = w.shadow.turn() || more
	if len(w.ready) == 0 {
		return more
	}
	w.ready, w.scratch = w.scratch[:0], w.ready
	for _, f := range w.scratch {
		// A flow that ended meanwhile has lost the mark, and so has its slot's
		// next user, unless that one is in the list too.
		if f.ready {
			f.ready = false
			if f.state == relaying {
				w.relay(f)
			}
		}
	}
	return more || len(w.ready) > 0
}

// again puts f on the list of flows that have more to do.
func (w *worker) again(f *flow) {
	if !f.ready {
		f.ready = true
		w.ready = append(w.ready, f)
	}
}

// handOver gives the records to the access log. It never waits: what the log
// does not take is counted and gone.
func (w *worker) handOver() {
	if len(w.records) == 0 {
		return
	}
	if w.proxy.records.Offer(w.records) {
		w.records = w.proxy.records.Get()
	} else {
		w.records = w.records[:0]
	}
}
