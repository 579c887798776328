package proxy

import (
	"time"

	"github.com/tproxyd/tproxyd/internal/sys"
	"golang.org/x/sys/unix"
)

// limit is what kept a flow from going faster.
type limit uint8

const (
	limitNone     limit = iota // nothing was sent, or nobody knows
	limitClient                // the client: it had nothing to send, or did not read
	limitUpstream              // the same of the upstream
	limitProxy                 // our send buffer
	limitNetwork               // the path, of which congestion control knows
	limitCount
)

var limitNames = [limitCount]string{"", "client", "upstream", "proxy", "network"}

// quality is what the kernel knows of a flow's legs at its end.
type quality struct {
	rtt     [2]uint32 // microseconds, smoothed; 0: never measured
	retrans [2]uint32 // segments sent again
	known   [2]bool
	limited limit
}

// leg is what a record says of one leg: -1 is what nobody knows.
func (q *quality) leg(side int) (rtt time.Duration, retrans int) {
	if !q.known[side] {
		return -1, -1
	}
	return time.Duration(q.rtt[side]) * time.Microsecond, int(q.retrans[side])
}

// Without records or a tap to fill in, only one short flow in so many is sampled: asking
// costs a twentieth of the CPU time of a connection that carries next to nothing.
const (
	sampleOne  = 16 // a power of two
	sampleAge  = time.Second
	sampleSize = 64 << 10
)

// sampling reports whether the kernel is to be asked about f.
func (f *flow) sampling(now int64) bool {
	return f.part.svc.records || f.id%sampleOne == 0 || now-f.accepted >= int64(sampleAge) ||
		f.dirs[client].bytes()+f.dirs[upstream].bytes() >= sampleSize
}

// sample asks the kernel for the quality of f's legs, once, while both are
// open.
func (w *worker) sample(f *flow, now int64) {
	if f.sampled || !w.knows(&f.head) && !f.sampling(now) {
		return
	}
	f.sampled = true
	reader := upstream // of the direction with more bytes
	if f.dirs[upstream].bytes() > f.dirs[client].bytes() {
		reader = client
	}
	for side := range f.legs {
		if side == upstream && f.connected == 0 || f.legs[side].fd < 0 {
			continue
		}
		if sys.TCPInfo(int(f.legs[side].fd), &w.info) != 0 {
			continue
		}
		f.quality.rtt[side], f.quality.retrans[side], f.quality.known[side] = w.info.Rtt, w.info.Total_retrans, true
		leg := &f.part.shard.legs[side]
		leg.rtt.observe(time.Duration(w.info.Rtt) * time.Microsecond)
		leg.retransmits.Add(uint64(w.info.Total_retrans))
		if side == reader && f.connected != 0 && f.dirs[1-side].bytes() > 0 {
			f.quality.limited = limitedBy(side, &w.info, time.Duration(now-f.connected))
		}
	}
}

// limitedBy tells what limited a flow of the age lived in the direction to
// reader, by the clocks of the socket that sent (tcp_chrono_start of the kernel):
// the time with data on the way, and the parts of it in which the reader's
// window or the send buffer kept more from being sent. Most of the time without
// data on the way, there was none to send.
func limitedBy(reader int, info *unix.TCPInfo, lived time.Duration) limit {
	busy := time.Duration(info.Busy_time) * time.Microsecond
	window := time.Duration(info.Rwnd_limited) * time.Microsecond
	buffer := time.Duration(info.Sndbuf_limited) * time.Microsecond
	switch by := [2]limit{client: limitClient, upstream: limitUpstream}; {
	case busy < lived/2:
		return by[1-reader]
	case window >= busy/2, info.Notsent_bytes > 0 && info.Snd_wnd < info.Snd_mss:
		// The clock of a window that stays shut stops at the first probe of it.
		return by[reader]
	case buffer >= busy/2:
		return limitProxy
	}
	return limitNetwork
}
