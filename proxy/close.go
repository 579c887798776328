package proxy

import (
	"math"
	"time"

	"github.com/tproxyd/tproxyd/internal/accesslog"
	"github.com/tproxyd/tproxyd/internal/sys"
	"golang.org/x/sys/unix"
)

const (
	settleAfter  = time.Second          // flows that live so long get liveness options on the upstream leg
	resetPoll    = 2 * time.Millisecond // first look at what is unacknowledged, then at doubling intervals
	resetDoubles = 5
	resetLinger  = 30 * time.Second // a leg may take none of its last bytes before the RST for so long, if half_close_timeout is off
)

// lostLeg handles an error read from leg side: everything that came before it
// has been read. The other leg gets the rest, then RST.
func (w *worker) lostLeg(f *flow, side int, e sys.Errno) {
	reasons := [2][2]Reason{{ClientReset, ClientLost}, {UpstreamReset, UpstreamLost}}
	lost := 0
	switch e {
	case unix.ETIMEDOUT, unix.EHOSTUNREACH, unix.ENETUNREACH, unix.EHOSTDOWN, unix.ENETDOWN, unix.ENONET:
		lost = 1
	}
	w.startReset(f, side, reasons[side][lost])
}

// cannotWrite handles an error of writing in the direction side: the leg
// written to has been reset. It may have sent something before that, which
// still goes the other way.
func (w *worker) cannotWrite(f *flow, side int) {
	gone := 1 - side
	l := &f.legs[gone]
	if l.fault == 0 {
		// Of shutdown, which says ENOTCONN and leaves the socket's error.
		why := sys.SocketError(int(l.fd))
		if why == 0 {
			why = unix.ECONNRESET
		}
		l.take(why)
	}
	l.readable, l.ending = true, true
	w.discard(&f.dirs[side])
	back := &f.dirs[gone]
	if back.closed {
		w.lostLeg(f, gone, sys.Errno(l.fault))
		return
	}
	// The direction side is over. Reading the leg that is gone ends in an error
	// or, as the error was taken by the write, in an end that is none.
	f.dirs[side].eof, f.dirs[side].closed = true, true
	w.loop.Schedule(&f.timer, w.flowDeadline(f))
	w.pump(f, gone)
}

// startReset gives up leg side and lets the other one have what was read.
func (w *worker) startReset(f *flow, side int, why Reason) {
	w.sample(f, w.loop.Now())
	f.reason = why
	f.closer = uint8(side)
	f.state = resetting
	w.discard(&f.dirs[1-side])
	w.closeLeg(f, side, false)
	f.waits = 0
	w.awaitReader(f)
	w.finishReset(f)
}

// awaitReader gives the leg that is left in state resetting new time to take
// what came before the RST.
func (w *worker) awaitReader(f *flow) {
	linger := f.part.svc.HalfCloseTimeout
	if linger == 0 {
		linger = resetLinger
	}
	f.deadline = w.loop.Now() + int64(linger)
}

// finishReset sends RST to the leg that is left as soon as it has acknowledged
// what came before: the RST of an aborted socket overtakes its send queue. A
// leg that takes nothing until the flow is due gets the RST all the same.
func (w *worker) finishReset(f *flow) {
	now := w.loop.Now()
	side := int(f.closer)
	d, to := &f.dirs[side], &f.legs[1-side]
	if now >= f.due() || to.failed {
		w.end(f, f.reason)
		return
	}
	if d.pending() {
		e := w.write(f, side)
		if f.lastActive == now {
			w.awaitReader(f)
		}
		switch e {
		case 0:
		case unix.EAGAIN:
			w.loop.Schedule(&f.timer, f.due())
			return
		default:
			w.end(f, f.reason)
			return
		}
	}
	if d.eof && !d.closed { // the RST came behind a FIN
		d.closed = true
		sys.ShutdownWrite(int(to.fd))
	}
	unsent, e := sys.Unsent(int(to.fd))
	if e != 0 || unsent == 0 {
		w.end(f, f.reason)
		return
	}
	if unsent != f.unacked {
		f.unacked = unsent
		w.awaitReader(f)
	}
	// There is no event for an empty send queue.
	w.loop.Schedule(&f.timer, min(now+int64(resetPoll)<<f.waits, f.due()))
	f.waits = min(f.waits+1, resetDoubles)
}

// flowExpired handles f's timer.
func (w *worker) flowExpired(f *flow) {
	now := w.loop.Now()
	switch f.state {
	case greeting, queued, waiting, connecting:
		switch {
		case f.drainAt != 0 && now >= f.drainAt:
			w.end(f, Drained)
		case now < f.deadline: // it was drained, but its service came back
			w.loop.Schedule(&f.timer, f.due())
		default:
			w.stateExpired(f)
		}
	case resetting:
		w.finishReset(f)
	case relaying:
		w.checkTimeouts(f, now)
	case free:
	}
}

// stateExpired goes on with f, which has not a connection yet and whose time in
// its state is over.
func (w *worker) stateExpired(f *flow) {
	switch f.state {
	case greeting:
		w.end(f, GreetingTimeout)
	case queued:
		w.end(f, QueueTimeout)
	case waiting:
		w.dial(f)
	case connecting:
		w.connectFailed(f, unix.ETIMEDOUT)
	case free, relaying, resetting:
	}
}

// checkTimeouts ends a relaying flow whose time is over, or looks again later.
func (w *worker) checkTimeouts(f *flow, now int64) {
	svc := f.part.svc
	if !f.settled && now >= f.connected+int64(settleAfter) {
		w.settle(f)
	}
	quiet, why := svc.IdleTimeout, IdleTimeout
	if f.halfClosed() {
		quiet, why = svc.HalfCloseTimeout, HalfCloseTimeout
	}
	switch {
	case f.drainAt != 0 && now >= f.drainAt:
		w.end(f, Drained)
	case svc.MaxLifetime > 0 && now >= f.accepted+int64(svc.MaxLifetime):
		w.end(f, LifetimeEnd)
	case quiet > 0 && now >= f.lastActive+int64(quiet):
		w.end(f, why)
	default:
		w.loop.Schedule(&f.timer, w.flowDeadline(f))
	}
}

func (f *flow) halfClosed() bool { return f.dirs[client].closed || f.dirs[upstream].closed }

// flowDeadline is the next time to look at a relaying flow. It is computed
// when the timer is set and not at each byte: the stamp lastActive moves.
func (w *worker) flowDeadline(f *flow) int64 {
	svc := f.part.svc
	at := int64(math.MaxInt64)
	quiet := svc.IdleTimeout
	if f.halfClosed() {
		quiet = svc.HalfCloseTimeout
	}
	if quiet > 0 {
		at = f.lastActive + int64(quiet)
	}
	if svc.MaxLifetime > 0 {
		at = min(at, f.accepted+int64(svc.MaxLifetime))
	}
	if f.drainAt != 0 {
		at = min(at, f.drainAt)
	}
	if !f.settled {
		at = min(at, f.connected+int64(settleAfter))
	}
	return at
}

// settle sets the options that make the kernel find out a silent upstream.
// Short flows never pay for them; the client leg has its from the listener.
func (w *worker) settle(f *flow) {
	f.settled = true
	w.unguard(f)
	if f.dirs[upstream].bytes() > 0 {
		w.succeeded(&f.head)
	}
	if err := sys.SetLiveness(int(f.legs[upstream].fd), f.part.svc.liveness()); err != nil {
		w.proxy.report(event{kind: eventOption, service: f.part.svc.Name, err: err})
	}
}

func (s *Service) liveness() sys.Liveness {
	return sys.Liveness{Keepalive: s.Keepalive, UserTimeout: s.UserTimeout}
}

// discard drops what d holds.
func (w *worker) discard(d *direction) {
	if d.buf != nil {
		w.bufs.release(d.buf)
		d.buf = nil
	}
	w.idlePipe(d)
}

// closeLeg closes one leg, with RST if abort is set.
func (w *worker) closeLeg(f *flow, side int, abort bool) {
	fd := int(f.legs[side].fd)
	if fd < 0 {
		return
	}
	if abort {
		sys.AbortOnClose(fd)
	}
	sys.Close(fd)
	f.legs[side].fd = -1
}

// end closes what is left of f, books it and frees it. Only a flow that both
// peers have closed ends in FIN.
func (w *worker) end(f *flow, why Reason) {
	abort := why != ClientClose && why != UpstreamClose
	if f.state == queued {
		w.leaveQueue(f)
	}
	now := w.loop.Clock()
	w.sample(f, now)
	w.judge(f, why)
	f.part.shard.closed[why].Add(1) // before a peer can notice
	w.closeLeg(f, client, abort)
	w.closeLeg(f, upstream, abort)
	if f.shadows != nil {
		w.shadow.leave(f.shadows, abort, 0)
	}
	w.endGreeting(f)
	f.dismiss()
	w.vacate(&f.head) // after that, so that the backend sees the end before the next flow
	w.discard(&f.dirs[client])
	w.discard(&f.dirs[upstream])
	w.loop.Cancel(&f.timer)
	w.unguard(f)

	svc := f.part.svc
	f.part.shard.duration.observe(time.Duration(now - f.accepted))
	w.proxy.unadmit(svc)
	w.stats.flows.Add(-1)
	if svc.records {
		w.record(f, why, now)
	}
	w.tapEnded(f, why)
	w.flows.give(f)
	if !w.trim.Scheduled() && len(w.pipes.idle) > 0 {
		w.loop.Schedule(&w.trim, now+int64(trimEvery))
	}
	if w.stats.paused.Load() {
		w.resumeAccepting()
	}
}

// record appends f to the batch for the access log.
func (w *worker) record(f *flow, why Reason, now int64) {
	r := w.newRecord(&f.head, why, now)
	r.Protocol = TCP.String()
	r.BytesIn, r.BytesOut = f.dirs[client].bytes(), f.dirs[upstream].bytes()
	r.ClientRTT, r.ClientRetrans = f.quality.leg(client)
	r.UpstreamRTT, r.UpstreamRetrans = f.quality.leg(upstream)
	r.LimitedBy = limitNames[f.quality.limited]
	r.PathIn, r.PathOut = f.dirs[client].path(), f.dirs[upstream].path()
	r.Retries = int(f.retries)
	r.ActConn, r.FeConn = uint32(w.proxy.active.Load()), uint32(f.part.svc.stats.active.Load())
	if f.connectAt != 0 {
		r.Queue = time.Duration(f.connectAt - f.accepted)
	}
	if f.connected != 0 {
		r.Connect = time.Duration(f.connected - f.connectAt)
	}
	if f.backend != nil {
		r.BeConn = r.FeConn
	}
	w.appendRecord(r, now)
}

// newRecord has what TCP and UDP flows have in common.
func (w *worker) newRecord(f *head, why Reason, now int64) accesslog.Record {
	r := accesslog.Record{
		Time: w.loop.Wall(f.accepted), FlowID: f.id, Service: f.part.svc.Name,
		Client: f.client.addrPort(), Destination: f.dest.addrPort(), UpstreamSource: f.source.addrPort(),
		SourcePolicy: f.part.svc.Source.String(),
		Queue:        -1, Connect: -1, Duration: time.Duration(now - f.accepted),
		Reason: why.String(), Term: why.Term(),
	}
	if f.backend != nil {
		r.Backend, r.BackendName = f.target(), f.backend.name
		r.SrvConn = uint32(f.backend.active.Load())
	}
	return r
}

// appendRecord adds r to the batch for the access log.
func (w *worker) appendRecord(r accesslog.Record, now int64) {
	if w.records == nil {
		w.records = w.proxy.records.Get()
	}
	w.records = append(w.records, r)
	if len(w.records) == cap(w.records) {
		w.handOver()
	} else if !w.flush.Scheduled() {
		w.loop.Schedule(&w.flush, now+int64(recordsEvery))
	}
}
