package proxy

import (
	"net/netip"

	"github.com/tproxyd/tproxyd/internal/sys"
	"golang.org/x/sys/unix"
)

// maxSegment is where the largest size of datagrams in one UDP_SEGMENT send
// begins, to go down when the kernel refuses a size.
const maxSegment = sys.MaxRun

// smallDatagram passes every path: an IPv6 link carries packets of 1280 bytes
// (RFC 8200, section 5).
const smallDatagram = 1280 - 48

// outbox gathers what goes to one socket, to leave in one system call.
// Consecutive datagrams of one flow and one size become one message.
type outbox struct {
	sender  *sys.Sender
	fd      int // -1: none
	letters []letter
	sending bool
}

// letter is what is known of a message of the sender's, by the same index.
type letter struct {
	f    *udpFlow
	gen  uint32 // of f, which may have ended meanwhile
	part *part
	side uint8 // direction
	// fragmented says that it came in fragments: its sender lets it be cut.
	fragmented bool
}

// put adds what came on leg side of f to the outbox of the socket fd.
func (u *udpWorker) put(o *outbox, f *udpFlow, side int, data []byte, c *sys.Control) {
	if f.shadows != nil && side == client {
		u.shadowDatagrams(f, client, data, c.Segment)
	}
	segment := c.Segment
	if segment > f.segment[side] { // the kernel does not send a run of that size
		for len(data) > segment && f.part != nil {
			u.putRun(o, f, side, data[:segment], c)
			data = data[segment:]
		}
	}
	if f.part != nil {
		u.putRun(o, f, side, data, c)
	}
}

// putRun adds a datagram, or a run of them.
func (u *udpWorker) putRun(o *outbox, f *udpFlow, side int, data []byte, c *sys.Control) {
	segment, unit := c.Segment, c.Segment
	if segment == 0 || segment >= len(data) {
		segment, unit = 0, len(data)
	}
	if n := len(o.letters); n > 0 && unit <= f.segment[side] && c.Fragment == 0 && o.letters[n-1].goesOn(f) && o.sender.Extend(segment, data) {
		return
	}
	if o.sender.Full() {
		pt := f.part
		if u.flush(o); f.part == nil {
			pt.shard.udp.dropped[dropSend].Add(count(len(data), segment))
			return
		}
	}
	var to *sys.SockAddr
	if side == upstream && f.fds[client] < 0 {
		to = &f.peer
	}
	o.sender.Add(to, segment, data)
	o.letters = append(o.letters, letter{f, f.gen, f.part, uint8(side), c.Fragment != 0})
}

// goesOn reports whether more datagrams of f may join the message.
func (m *letter) goesOn(f *udpFlow) bool { return m.f == f && m.gen == f.gen && !m.fragmented }

// address makes fd the socket that o sends by.
func (u *udpWorker) address(o *outbox, fd int) {
	if o.fd != fd {
		u.flush(o)
		o.fd = fd
	}
}

// flush sends what is in o. What the kernel does not take is dropped and
// counted: datagrams do not wait.
func (u *udpWorker) flush(o *outbox) {
	if len(o.letters) == 0 || o.sending {
		return
	}
	o.sending = true
	for first := 0; first < len(o.letters); {
		n, e := o.sender.Send(o.fd, first)
		for i := first; i < first+n; i++ {
			u.sent(o, i)
		}
		first += n
		if first < len(o.letters) {
			u.refused(o, first, e)
			first++
		}
	}
	o.sending = false
	o.sender.Reset()
	o.letters = o.letters[:0]
	if o == &u.out {
		u.wrapped = u.wrapped[:0]
	}
}

// sent books message i of o.
func (u *udpWorker) sent(o *outbox, i int) {
	s, side := &o.letters[i].part.shard.udp, o.letters[i].side
	n := uint64(o.sender.Count(i))
	s.datagrams[side].Add(n)
	if o.sender.Segment(i) > 0 {
		s.segmented[side].Add(n)
	}
}

// refused handles message i of o, which the kernel did not take.
func (u *udpWorker) refused(o *outbox, i int, e sys.Errno) {
	m := &o.letters[i]
	switch e {
	case unix.EAGAIN, unix.ENOBUFS, unix.ENOMEM:
		m.part.shard.udp.dropped[dropBufferFull].Add(uint64(o.sender.Count(i)))
		return
	case unix.EIO, unix.EINVAL, unix.EMSGSIZE:
		if segment := o.sender.Segment(i); segment > 0 && m.alive() {
			m.f.segment[m.side] = segment - 1
			if e == unix.EIO { // the device computes no checksums
				m.f.segment[m.side] = 0
			}
			u.stats.refusedRuns.Add(1)
		}
	default:
		// An ICMP error that an earlier datagram met is reported in place of
		// sending this one (udp(7)).
		switch {
		case !m.alive() || m.f.fds[1-m.side] < 0:
		case m.side == client:
			u.readErrors(m.f, upstream)
		default:
			u.clientError(m.f, e)
		}
	}
	for d := range o.sender.Datagrams(i) {
		u.sendOne(o, i, d)
	}
}

// alive reports whether the flow of m has not ended.
func (m *letter) alive() bool { return m.f.gen == m.gen && m.f.part != nil }

// sendOne sends a datagram of message i of o by itself.
func (u *udpWorker) sendOne(o *outbox, i int, data []byte) {
	m := &o.letters[i]
	s := &m.part.shard.udp
	if o.fd < 0 || !m.alive() { // the error has ended the flow
		s.dropped[dropSend].Add(1)
		return
	}
	e := u.sendDatagram(o, i, data)
	if e == unix.EMSGSIZE {
		e = u.tooBig(o, i, data)
	}
	switch e {
	case 0:
		s.datagrams[m.side].Add(1)
	case unix.EMSGSIZE:
		s.dropped[dropTooBig].Add(1)
	case unix.EAGAIN, unix.ENOBUFS, unix.ENOMEM:
		s.dropped[dropBufferFull].Add(1)
	default:
		s.dropped[dropSend].Add(1)
	}
}

func (u *udpWorker) sendDatagram(o *outbox, i int, data []byte) sys.Errno {
	var to *sys.SockAddr
	if m := &o.letters[i]; m.side == upstream && m.f.fds[client] < 0 {
		to = &m.f.peer
	}
	u.one.Reset()
	u.one.Add(to, 0, data)
	_, e := u.one.Send(o.fd, 0)
	return e
}

// tooBig handles a datagram that is larger than the path takes, as a router
// would: one that came in fragments is sent in fragments, of another one its
// sender is told (RFC 1191, RFC 8201).
func (u *udpWorker) tooBig(o *outbox, i int, data []byte) sys.Errno {
	m := &o.letters[i]
	from, to := m.f.client.addrPort(), m.f.dest.addrPort()
	target, source := m.f.target(), m.f.source.addrPort().Addr()
	if m.side == upstream {
		from, to = m.f.target(), m.f.source.addrPort()
		target, source = m.f.client.addrPort(), m.f.dest.addrPort().Addr()
	}
	family := sys.Family(target.Addr())
	if m.fragmented {
		if e := sys.SetDontFragment(o.fd, family, false); e != 0 {
			return e
		}
		e := u.sendDatagram(o, i, data)
		sys.SetDontFragment(o.fd, family, true)
		return e
	}
	if m.side == client && (m.f.named || m.part.svc.SendProxy > 0) {
		return unix.EMSGSIZE // its client is not whom we speak to, or sent less than what is too big
	}
	if mtu, err := sys.PathMTU(target, source, m.part.svc.mark); err == nil {
		u.tellTooBig(from, to, len(data), mtu, data)
	}
	return unix.EMSGSIZE
}

// tellTooBig sends ICMP "fragmentation needed" or "packet too big" for a
// datagram of size bytes, which begins with data.
func (u *udpWorker) tellTooBig(from, to netip.AddrPort, size, mtu int, data []byte) {
	if !from.IsValid() || !to.IsValid() {
		return // the source policy host: nobody kept the proxy's port
	}
	if icmp := u.icmp(); icmp != nil {
		icmp.TooBig(from, to, size, mtu, data)
	}
}
