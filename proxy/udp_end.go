package proxy

import (
	"math"
	"time"

	"github.com/tproxyd/tproxyd/internal/sys"
)

// deadline is the next time to look at f. It is computed when the timer is
// set and not at each datagram: the stamp lastActive moves.
func (u *udpWorker) deadline(f *udpFlow) int64 {
	svc := f.part.svc
	at := int64(math.MaxInt64)
	if quiet, _ := f.patience(); quiet > 0 {
		at = f.lastActive + int64(quiet)
	}
	if svc.MaxLifetime > 0 {
		at = min(at, f.accepted+int64(svc.MaxLifetime))
	}
	if f.drainAt != 0 {
		at = min(at, f.drainAt)
	}
	return at
}

// patience is how long f may be quiet, and as what it ends then. 0: for ever.
func (f *udpFlow) patience() (time.Duration, Reason) {
	svc := f.part.svc
	if f.datagrams[upstream] == 0 && svc.UnrepliedTimeout > 0 {
		return svc.UnrepliedTimeout, Unreplied
	}
	return svc.IdleTimeout, IdleTimeout
}

// expired handles f's timer.
func (u *udpWorker) expired(f *udpFlow) {
	now := u.loop.Now()
	svc := f.part.svc
	quiet, why := f.patience()
	switch {
	case f.drainAt != 0 && now >= f.drainAt:
		u.end(f, Drained)
	case svc.MaxLifetime > 0 && now >= f.accepted+int64(svc.MaxLifetime):
		u.end(f, LifetimeEnd)
	case quiet > 0 && now >= f.lastActive+int64(quiet):
		if f.datagrams[upstream] == 0 {
			f.backend.results[resultTimeout].Add(1)
		}
		u.end(f, why)
	default:
		u.schedule(f)
	}
}

// schedule sets f's timer, if there is a time at which f is to end.
func (u *udpWorker) schedule(f *udpFlow) {
	if at := u.deadline(f); at < math.MaxInt64 {
		u.loop.Schedule(&f.timer, at)
	} else {
		u.loop.Cancel(&f.timer)
	}
}

// end closes f's sockets, books it and frees it.
func (u *udpWorker) end(f *udpFlow, why Reason) {
	// What has come for either side leaves. If that meets an error which ends f,
	// it has ended.
	gen := f.gen
	for _, fd := range f.fds {
		if u.leaveBoth(int(fd)); f.gen != gen {
			return
		}
	}
	l, pt := f.listener, f.part
	u.closeSockets(f)
	if f.shadows != nil {
		u.shadow.leave(f.shadows, false, f.datagrams[upstream])
	}
	f.table.remove(f)
	u.loop.Cancel(&f.timer)
	u.vacate(&f.head)
	f.dismiss()
	now := u.loop.Now()
	pt.shard.udp.closed[why].Add(1)
	pt.shard.udp.duration.observe(time.Duration(now - f.accepted))
	if pt.svc.records {
		u.recordUDP(f, why, now)
	}
	u.tapEnded(f, why)
	u.unclaim(f)
	pt.svc.stats.flows.Add(-1)
	u.proxy.flows.Add(-1)
	u.flows.give(f)
	if l.flows.Add(-1) == 0 && l.closing {
		u.proxy.closeIdle(l.key)
	}
}

// closeSockets closes the sockets of f.
func (u *udpWorker) closeSockets(f *udpFlow) {
	u.closeSocket(f, client)
	u.closeSocket(f, upstream)
}

func (u *udpWorker) closeSocket(f *udpFlow, side int) {
	fd := int(f.fds[side])
	if fd < 0 {
		return
	}
	u.leaveBoth(fd)
	sys.Close(fd)
	f.fds[side] = -1
	u.stats.flowSockets.Add(-1)
}

// leaveBoth is leave of either outbox.
func (u *udpWorker) leaveBoth(fd int) {
	if fd >= 0 {
		u.leave(&u.out, fd)
		u.leave(&u.home, fd)
	}
}

// leave sends what is in o by fd before that is no longer o's to use.
func (u *udpWorker) leave(o *outbox, fd int) {
	if o.fd == fd {
		u.flush(o)
		o.fd = -1
	}
}

// recordUDP appends f to the batch for the access log.
func (u *udpWorker) recordUDP(f *udpFlow, why Reason, now int64) {
	r := u.newRecord(&f.head, why, now)
	r.Protocol = UDP.String()
	r.BytesIn, r.BytesOut = f.bytes[client], f.bytes[upstream]
	r.DatagramsIn, r.DatagramsOut = f.datagrams[client], f.datagrams[upstream]
	r.PathIn, r.PathOut = udpPath(f.datagrams[client]), udpPath(f.datagrams[upstream])
	r.ActConn, r.FeConn = uint32(u.proxy.flows.Load()), uint32(f.part.svc.stats.flows.Load())
	r.BeConn = r.FeConn
	u.appendRecord(r, now)
}

// pathDatagram is the relay path of UDP.
const pathDatagram = "datagram"

func udpPath(datagrams uint64) string {
	if datagrams == 0 {
		return "none"
	}
	return pathDatagram
}
