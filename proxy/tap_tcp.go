package proxy

import (
	"net/netip"

	"github.com/tproxyd/tproxyd/internal/sys"
)

// tapOpened tells of f, which was admitted just now.
func (w *worker) tapOpened(f *flow) {
	if w.tap == nil {
		return
	}
	f.tapped = w.tapTurn
	t := w.tellOf(&f.head)
	t.Peer, t.Local = t.Client, t.Destination
	if fd := int(f.legs[client].fd); f.named && fd >= 0 {
		t.Peer, t.Local = w.name(fd, sys.PeerName), w.name(fd, sys.LocalName)
	}
	w.tap.Opened(t)
}

// name is one of the two addresses of fd.
func (w *worker) name(fd int, of func(int, *sys.SockAddr) sys.Errno) netip.AddrPort {
	if of(fd, &w.addr) != 0 {
		return netip.AddrPort{}
	}
	return w.addr.AddrPort()
}

// tapDialing tells that f is about to connect.
func (w *worker) tapDialing(f *flow) {
	if w.tap == nil {
		return
	}
	if !w.knows(&f.head) { // the tap is new
		w.tapOpened(f)
	}
	t := w.tellTry(f)
	t.UpstreamSource = f.bound()
	w.tap.Dialing(t)
}

// tellTry is tellOf a flow that is dialled.
func (w *worker) tellTry(f *flow) *TapFlow {
	t := w.tellOf(&f.head)
	t.Retries = int(f.retries)
	t.Why = f.whyDialed(t.Retries, f.queuedAt != 0)
	return t
}

// tapDialed tells the source that the kernel has given f.
func (w *worker) tapDialed(f *flow) {
	if w.knows(&f.head) && f.policy != Client && f.policy != PreferClient {
		w.tap.Dialed(w.tellTry(f))
	}
}

// tapFailed tells that f is not connected and why.
func (w *worker) tapFailed(f *flow, why Reason) {
	if w.knows(&f.head) {
		t := w.tellTry(f)
		t.UpstreamSource = f.bound()
		w.tellFailed(t, why)
	}
}

// tapEnded tells of the end of f, or of a client that never got so far as to
// have a flow.
func (w *worker) tapEnded(f *flow, why Reason) {
	if !f.admitted {
		w.tellRefused(f.part, f.client, why)
		return
	}
	if !w.knows(&f.head) {
		return
	}
	t := w.tellTry(f)
	t.Reason = why
	t.BytesIn, t.BytesOut = f.dirs[client].bytes(), f.dirs[upstream].bytes()
	t.ClientRTT, t.ClientRetrans = f.quality.leg(client)
	t.UpstreamRTT, t.UpstreamRetrans = f.quality.leg(upstream)
	w.tap.Ended(t)
}

// introduce tells a new tap of f, which is older than that.
func (w *worker) introduce(f *flow) {
	if w.tap == nil || !f.admitted || w.knows(&f.head) {
		return
	}
	w.tapOpened(f)
	switch f.state {
	case connecting, relaying, resetting:
		if fd := f.legs[upstream].fd; f.source == (endpoint{}) && fd >= 0 && sys.LocalName(int(fd), &w.addr) == 0 {
			f.source = newEndpoint(w.addr.AddrPort())
		}
		w.tap.Dialing(w.tellTry(f))
	case free, greeting, queued, waiting:
	}
}
