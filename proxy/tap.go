package proxy

import (
	"net/netip"
	"time"
)

// Tap is told of flows while they live, on a worker's thread; of health also by
// the control plane, so its methods run at the same time. They must not wait,
// must not call the Proxy, and keep no pointer.
//
// Of one flow it is told by one worker, in this order:
//
//	Opened, then for each try [Dialing [Dialed]] [Failed], then Ended
//
// Dialing is left out of a try that does not get as far as to a bound socket,
// and Failed of one that the end of the flow cuts short.
type Tap interface {
	// Opened: the flow was accepted and admitted. It has no backend yet.
	Opened(*TapFlow)
	// Dialing: its upstream socket is bound, and nothing has left it yet: neither
	// SYN nor datagram. What the kernel is still to choose of UpstreamSource,
	// which may be all of it, is zero; of UDP it has chosen. Of a flow that is
	// older than the tap all of it has happened.
	Dialing(*TapFlow)
	// Dialed: connect(2) has just returned and has chosen what Dialing could not
	// say of UpstreamSource. The SYN has left. Not told if connect(2) has failed
	// already.
	Dialed(*TapFlow)
	// Failed: a try is over. Reason says how; another one may follow.
	Failed(*TapFlow)
	// Ended: the flow has ended, once for every Opened, and its sockets are
	// closed.
	Ended(*TapFlow)
	// Event: something was decided.
	Event(*TapEvent)
}

// TapFlow is a flow as a Tap is told of it.
type TapFlow struct {
	ID       uint64 // as in the access log
	Accepted time.Time
	Service  string
	Protocol Protocol

	Client, Destination netip.AddrPort // as in the access log: a PROXY header may have named them
	Peer, Local         netip.AddrPort // the client's leg on the wire; of Opened only

	// From Dialing on, of the latest try.
	BackendName    string
	Backend        netip.AddrPort
	UpstreamSource netip.AddrPort // see Dialing
	Algorithm      string         // by which the backend was chosen; "" if it is the original destination
	Route          string         // by which it could be; "" of the default pool
	Why            string         // it was dialled, for people
	SourcePolicy   string         // in force: of prefer-client, also what it fell back to
	Retries        int            // backends tried before

	Reason Reason // of Failed and Ended

	// Of Ended. A leg's round-trip time and its segments sent again are -1 where
	// nobody knows them, as always of UDP.
	BytesIn, BytesOut              uint64
	DatagramsIn, DatagramsOut      uint64 // of UDP
	ClientRTT, UpstreamRTT         time.Duration
	ClientRetrans, UpstreamRetrans int
}

// TapEventKind is what a TapEvent is about.
type TapEventKind uint8

// The kinds of events.
const (
	TapRefused       TapEventKind = iota // a client got no flow; Text is the Reason's name
	TapConnectFailed                     // a try has Failed; Text is the Reason's name
	TapEjected                           // a backend is out of use for what flows have met
	TapHealth                            // any other change of a backend's health
)

func (k TapEventKind) String() string {
	return [...]string{"refused", "connect_failed", "ejected", "health"}[k]
}

// TapEvent is a decision.
type TapEvent struct {
	Time    time.Time
	Kind    TapEventKind
	Service string
	Backend string         // but of TapRefused
	Client  netip.AddrPort // of TapRefused and TapConnectFailed
	Flow    uint64         // of TapConnectFailed
	Reason  Reason         // of TapRefused and TapConnectFailed
	Text    string         // for people
	Missed  uint64         // of TapRefused: so many more of this worker's were not told since the last, see refusalsPerSecond
}

// refusalsPerSecond bounds the TapRefused of a worker: anybody can cause them.
const refusalsPerSecond = 100

// tapping is a worker's part of the tap. Without one, a flow's events cost a
// look at tap.
type tapping struct {
	tap     Tap
	tapTurn uint8   // of the taps, see head.tapped
	told    TapFlow // lent to the tap

	refusalsLeft int   // that may be told
	refusalsFrom int64 // since when
	missed       uint64
}

// SetTap has t told of flows from now on, in place of the tap there was; nil:
// none. Of flows that there are it is told Opened and, if they have been
// dialled, Dialing. The tap that there was is not called any more when SetTap
// returns: it misses the Ended of flows that go on.
func (p *Proxy) SetTap(t Tap) {
	p.tapMu.Lock()
	defer p.tapMu.Unlock()
	p.governor.setTap(t)
	p.each(func(w *worker) { w.setTap(t) })
	if t == nil {
		return
	}
	for _, w := range p.workers {
		w.inTurns(func(from int) bool {
			return w.flows.some(from, flowsAtOnce, func(f *flow) { w.introduce(f) })
		})
		w.inTurns(func(from int) bool {
			return w.udp.flows.some(from, flowsAtOnce, func(f *udpFlow) { w.udp.introduce(f) })
		})
	}
}

func (w *worker) setTap(t Tap) {
	w.tap, w.missed = t, 0
	if t != nil {
		// All flows are told to each tap, so that no mark is older than one turn.
		if w.tapTurn++; w.tapTurn == 0 {
			w.tapTurn++
		}
	}
}

func (g *governor) setTap(t Tap) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.tap = t
}

// knows reports whether the tap was told of f.
func (w *worker) knows(f *head) bool { return w.tap != nil && f.tapped == w.tapTurn }

// tellOf makes f what the tap is told.
func (w *worker) tellOf(f *head) *TapFlow {
	svc := f.part.svc
	w.told = TapFlow{
		ID: f.id, Accepted: w.loop.Wall(f.accepted), Service: svc.Name, Protocol: svc.Protocol,
		Client: f.client.addrPort(), Destination: f.dest.addrPort(), SourcePolicy: f.policy.String(),
		ClientRTT: -1, UpstreamRTT: -1, ClientRetrans: -1, UpstreamRetrans: -1,
	}
	if f.backend != nil {
		w.told.Backend, w.told.BackendName, w.told.UpstreamSource = f.target(), f.backend.name, f.source.addrPort()
		w.told.Route = svc.routeName(f.route)
		if !svc.original() {
			w.told.Algorithm = svc.Balance.String()
		}
	}
	return &w.told
}

// whyDialed says why a flow goes to its backend.
func (f *head) whyDialed(retries int, queued bool) string {
	switch {
	case f.backend == nil:
		return ""
	case f.part.svc.original():
		return "original destination"
	case retries > 0:
		return "the backend before it failed"
	case queued:
		return "room became free"
	}
	return "first choice"
}

// bound is what a socket of f is bound to before it is connected.
func (f *head) bound() netip.AddrPort {
	switch from := f.client.addrPort(); f.policy {
	case Client, PreferClient:
		return from
	case ClientIP:
		return netip.AddrPortFrom(from.Addr(), 0)
	case Host:
	}
	return netip.AddrPort{}
}

// tellFailed tells of a try of f, which t is of, that is over.
func (w *worker) tellFailed(t *TapFlow, why Reason) {
	t.Reason = why
	w.tap.Failed(t)
	w.tap.Event(&TapEvent{
		Time: w.loop.Wall(w.loop.Now()), Kind: TapConnectFailed, Service: t.Service, Backend: t.BackendName,
		Client: t.Client, Flow: t.ID, Reason: why, Text: why.String(),
	})
}

// tellRefused tells of a client that got no flow.
func (w *worker) tellRefused(pt *part, client endpoint, why Reason) {
	if w.tap == nil || !why.Rejected() {
		return
	}
	now := w.loop.Now()
	if w.refusalsFrom == 0 || now-w.refusalsFrom > int64(time.Second) {
		w.refusalsFrom, w.refusalsLeft = now, refusalsPerSecond
	}
	if w.refusalsLeft == 0 {
		w.missed++
		return
	}
	w.refusalsLeft--
	w.tap.Event(&TapEvent{
		Time: w.loop.Wall(now), Kind: TapRefused, Service: pt.svc.Name, Client: client.addrPort(),
		Reason: why, Text: why.String(), Missed: w.missed,
	})
	w.missed = 0
}
