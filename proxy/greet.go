package proxy

import (
	"errors"
	"net/netip"

	"github.com/tproxyd/tproxyd/internal/accesslog"
	"github.com/tproxyd/tproxyd/internal/clienthello"
	"github.com/tproxyd/tproxyd/internal/proxyproto"
	"github.com/tproxyd/tproxyd/internal/sys"
	"golang.org/x/sys/unix"
)

// MaxHello is the largest Service.HelloMax.
const MaxHello = 60 << 10

// errForged is what read answers when somebody has begun with a PROXY header
// who may not send one. No call on a TCP socket does.
const errForged = unix.EPROTO

// prelude is what a client has yet to send before its flow gets a backend. A
// worker lends it until then.
type prelude struct {
	header  bool // a PROXY header
	hello   bool // a ClientHello
	scanner clienthello.Scanner
}

// expects is what a flow of svc whose peer is from has to begin with. Who may
// not send a PROXY header is refused, or watched.
func (w *worker) expects(f *flow, from netip.Addr) (header, hello bool) {
	svc := f.part.svc
	switch svc.AcceptProxy {
	case ProxyRequire:
		header = true
	case ProxyAcceptFrom:
		header = svc.trusts(from)
		f.unproven = !header
	case ProxyOff:
	}
	return header, len(svc.Routes) > 0
}

// trusts reports whether PROXY headers from a are believed.
func (s *service) trusts(a netip.Addr) bool {
	return s.trusted.Contains(a.Unmap().WithZone("")) || s.AcceptProxy == ProxyRequire && len(s.ProxyFrom) == 0
}

// beginGreeting has f wait for what its client has to send.
func (w *worker) beginGreeting(f *flow, header, hello bool) {
	if n := len(w.preludes); n > 0 {
		f.prelude = w.preludes[n-1]
		w.preludes = w.preludes[:n-1]
	} else {
		f.prelude = &prelude{}
	}
	*f.prelude = prelude{header: header, hello: hello}
	f.state = greeting
	w.awaitGreeting(f)
	w.greet(f)
}

// awaitGreeting sets the time until which the next part has to be there.
func (w *worker) awaitGreeting(f *flow) {
	svc := f.part.svc
	limit := svc.HelloTimeout
	if f.prelude.header {
		limit = svc.ProxyTimeout
	}
	f.deadline = w.loop.Now() + int64(limit)
	w.loop.Schedule(&f.timer, f.due())
}

// endGreeting takes the greeting back.
func (w *worker) endGreeting(f *flow) {
	if f.prelude != nil {
		w.preludes = append(w.preludes, f.prelude)
		f.prelude = nil
	}
}

// greet takes what the client has sent, and goes on if that is all there has to
// be.
func (w *worker) greet(f *flow) {
	d, from := &f.dirs[client], &f.legs[client]
	for from.readable && !d.eof {
		held := d.held()
		room := min(greetingSize-len(held), len(w.buf))
		n, e := sys.Recv(int(from.fd), w.buf[:room])
		switch {
		case e == unix.EAGAIN:
			from.readable = false
			return
		case e != 0:
			w.end(f, ClientAbort)
			return
		case n == 0:
			d.eof = true
		case f.unproven && f.forged(w.buf[:n]):
			w.end(f, ProxyHeaderRefused)
			return
		default:
			d.buf = w.bufs.join(d.buf, w.buf[:n])
		}
		from.readable = n == room || from.ending || from.urgent // see read
		if w.understand(f) {
			return
		}
	}
	if d.eof {
		w.end(f, f.unfinished())
	}
}

// regreet has f go by the part that a reload has given it: there may be routes
// now, or none any more.
func (w *worker) regreet(f *flow) {
	g := f.prelude
	g.hello = len(f.part.svc.Routes) > 0
	if !g.header && !g.hello {
		w.understand(f)
	}
}

// unfinished is why a flow ends whose client has ended its stream too early.
// One that never said anything may be somebody's check.
func (f *flow) unfinished() Reason {
	switch {
	case len(f.dirs[client].held()) == 0 && !f.named:
		return ClientAbort
	case f.prelude.header:
		return ProxyHeaderRefused
	}
	return ClientHelloRefused
}

// understand looks at what the client of f has sent, and reports whether f has
// left the state greeting.
func (w *worker) understand(f *flow) bool {
	g := f.prelude
	if g.header {
		h, n, err := proxyproto.Parse(f.dirs[client].held())
		switch {
		case errors.Is(err, proxyproto.ErrShort):
			return false
		case err != nil || h.Datagram || !f.adopt(&h):
			w.end(f, ProxyHeaderRefused)
			return true
		}
		w.consume(&f.dirs[client], n)
		g.header = false
		if !w.admitClient(f) {
			return true
		}
		if g.hello {
			w.awaitGreeting(f)
		}
	}
	var hello clienthello.Hello
	if g.hello {
		var err error
		hello, err = g.scanner.Parse(f.dirs[client].held(), f.part.svc.HelloMax)
		switch {
		case err == nil:
			f.route = uint16(f.part.svc.table.Match(&hello) + 1)
		case errors.Is(err, clienthello.ErrShort):
			return false
		case errors.Is(err, clienthello.ErrNotTLS):
		default:
			w.end(f, ClientHelloRefused)
			return true
		}
	}
	w.endGreeting(f)
	w.loop.Cancel(&f.timer)
	if n := len(f.dirs[client].held()); n > 0 {
		w.count(f, client, pathCopy, n)
	}
	w.announce(f, hello.ServerName())
	w.connect(f)
	return true
}

// adopt makes the addresses of a PROXY header those of f, and reports whether
// they can be. Without addresses, those of the connection stay.
func (f *head) adopt(h *proxyproto.Header) bool {
	if h.Local {
		return true
	}
	f.named = true
	a := h.Source.Addr()
	if !a.IsValid() || a.IsUnspecified() || a.IsMulticast() || h.Source.Port() == 0 {
		return false
	}
	f.client = newEndpoint(h.Source)
	if f.part.svc.Protocol == TCP && !f.part.svc.original() {
		f.dest = newEndpoint(h.Destination)
	}
	return true
}

// forged scans the first bytes of a client that may not send a PROXY header.
// Without this the backend might believe it.
func (f *flow) forged(b []byte) bool {
	switch f.signature.Scan(b) {
	case proxyproto.Present:
		return true
	case proxyproto.Absent:
		f.unproven = false
	case proxyproto.Possible:
	}
	return false
}

// announce puts the PROXY header that the backend gets in front of what the
// client has sent.
func (w *worker) announce(f *flow, name []byte) {
	version := f.part.svc.SendProxy
	if version == 0 {
		return
	}
	header := w.proxyHeader(&f.head, version, name)
	d := &f.dirs[client]
	old := d.buf
	d.buf = w.bufs.hold(header)
	if old != nil {
		d.buf = w.bufs.join(d.buf, old.rest())
		w.bufs.release(old)
	}
}

// proxyHeader is the PROXY header of f, in memory that is used again for the
// next one.
func (w *worker) proxyHeader(f *head, version int, name []byte) []byte {
	source, destination := f.client.addrPort(), f.dest.addrPort()
	if version == 1 {
		w.header = proxyproto.AppendV1(w.header[:0], source, destination)
		return w.header
	}
	id := accesslog.AppendFlowID(w.flowID[:0], f.id)
	w.header = proxyproto.AppendV2(w.header[:0], &proxyproto.Header{
		Source: source, Destination: destination, Datagram: f.part.svc.Protocol == UDP,
		Authority: name, UniqueID: id,
	})
	return w.header
}
