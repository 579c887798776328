package proxy

import (
	"time"

	"github.com/tproxyd/tproxyd/internal/sys"
	"golang.org/x/sys/unix"
)

const (
	streamDatagrams = 64      // so many from one socket make it worth to be set up for streams
	streamBuffer    = 4 << 20 // SO_RCVBUF of such a socket
)

// toUpstream passes on a datagram of f's client, or a run of them.
func (u *udpWorker) toUpstream(f *udpFlow, data []byte, c *sys.Control) {
	u.address(&u.out, int(f.fds[upstream]))
	u.account(f, client, data, c)
	if f.part.svc.SendProxy > 0 {
		u.putProxied(f, data, c)
	} else {
		u.put(&u.out, f, client, data, c)
	}
	if f.part == nil {
		return // an error of what was sent before has ended it
	}
	if most := f.part.svc.Requests; most > 0 && f.datagrams[client]-f.spentAt >= uint64(most) {
		f.spent = true
	}
}

// account books a datagram, or a run, that came on leg side of f.
func (u *udpWorker) account(f *udpFlow, side int, data []byte, c *sys.Control) {
	n := count(len(data), c.Segment)
	f.lastActive = u.loop.Now()
	f.datagrams[side] += n
	if side == upstream && f.datagrams[upstream] == n { // the first reply
		f.backend.results[resultOK].Add(1)
		u.succeeded(&f.head)
		f.backend.connect.observe(time.Duration(f.lastActive - f.accepted))
		if svc := f.part.svc; svc.IdleTimeout > 0 && svc.IdleTimeout < svc.UnrepliedTimeout {
			u.schedule(f) // the shorter time holds from now on
		}
	}
	f.bytes[side] += uint64(len(data))
	f.part.shard.udp.bytes[side].Add(uint64(len(data)))
	f.table.touch(f)
	if len(data) > smallDatagram && !f.large[side] {
		u.prepareLarge(f, side)
	}
}

// prepareLarge sets up f's own sockets for datagrams that may be larger than
// the path takes: the one that they come to says whether they came in
// fragments, the other one does not make any unless told to. Short flows of
// small datagrams never pay for it.
func (u *udpWorker) prepareLarge(f *udpFlow, side int) {
	f.large[side] = true
	if fd := int(f.fds[side]); fd >= 0 {
		sys.SetFragmentSize(fd, f.family(side))
		sys.SetInt(fd, unix.SOL_SOCKET, unix.SO_RXQ_OVFL, 1)
	}
	if fd := int(f.fds[1-side]); fd >= 0 {
		sys.SetDontFragment(fd, f.family(1-side), true)
	}
}

// family is the address family of leg side.
func (f *udpFlow) family(side int) int {
	if side == client {
		return int(f.client.family)
	}
	return int(f.to().family)
}

// fromClientSocket passes on what has come to f's own client socket.
func (u *udpWorker) fromClientSocket(f *udpFlow) {
	fd := int(f.fds[client])
	for range udpRounds {
		n, e := u.rx.Receive(fd, 0)
		switch e {
		case 0:
		case unix.EAGAIN:
			return
		default:
			if u.clientError(f, e); f.part == nil {
				return
			}
			continue // what is behind the error can be read
		}
		for i := range n {
			if f = u.fromClient(f, i); f == nil {
				u.flush(&u.out)
				return
			}
		}
		u.flush(&u.out)
		if f.part == nil || n < udpSlots {
			return
		}
	}
	u.again(f, client)
}

// fromClient passes on message i of u.rx, which came to the client socket of f.
// It returns the flow that has the socket now, nil if there is none.
func (u *udpWorker) fromClient(f *udpFlow, i int) *udpFlow {
	c := u.rx.Control(i)
	if !u.accept(f, client, len(u.rx.Data(i)), &c) {
		return f
	}
	if f.spent || u.loopedBack(f, &c) {
		u.flush(&u.out)
		pt := f.part
		next, why := u.find(f.listener, f.key(), &f.peer, &c)
		if next == nil {
			pt.shard.udp.dropped[why].Add(count(len(u.rx.Data(i)), c.Segment))
			if f.part == nil {
				return nil
			}
			return f
		}
		f = next
	}
	u.toUpstream(f, u.rx.Data(i), &c)
	if f.part == nil {
		return nil
	}
	if f.part.svc.Requests == 0 {
		u.speedUp(f, client)
	}
	return f
}

// fromUpstream passes on what f's upstream has sent. Replies leave at the end
// of the batch of events, together with those of other flows.
func (u *udpWorker) fromUpstream(f *udpFlow) {
	home := f.listener.fd
	if f.fds[client] >= 0 {
		home = int(f.fds[client])
	}
	for range udpRounds {
		if u.home.fd != home || u.used == udpSlots {
			u.flush(&u.home)
			u.home.fd, u.used = home, 0
		}
		room := udpSlots - u.used
		n, e := u.back.Receive(int(f.fds[upstream]), u.used)
		switch e {
		case 0:
		case unix.EAGAIN:
			return
		default:
			if u.readErrors(f, upstream); f.part == nil {
				return
			}
			continue // what is behind the error can be read
		}
		first := u.used
		u.used += n
		for i := first; i < first+n; i++ {
			c := u.back.Control(i)
			data := u.back.Data(i)
			if u.accept(f, upstream, len(data), &c) {
				u.reply(f, data, &c)
			}
			if f.part == nil {
				return // the client's port is closed
			}
		}
		u.speedUp(f, upstream)
		if n < room {
			return
		}
	}
	u.again(f, upstream)
}

// accept books what c says of f's own socket of leg side, and reports whether
// the datagram is whole.
func (u *udpWorker) accept(f *udpFlow, side, size int, c *sys.Control) bool {
	if size > smallDatagram && !f.large[side] && c.Segment == 0 {
		c.Fragment = size // it may have come in fragments: the socket was not asked to say so
	}
	s := &f.part.shard.udp
	f.overflowed[side] = s.overflow(f.overflowed[side], c)
	if c.Truncated {
		s.dropped[dropTruncated].Add(1)
	}
	return !c.Truncated
}

// reply passes on a datagram of f's upstream, or a run of them.
func (u *udpWorker) reply(f *udpFlow, data []byte, c *sys.Control) {
	u.account(f, upstream, data, c)
	if f.shadows != nil {
		u.shadowDatagrams(f, upstream, data, c.Segment)
	}
	if f.raw {
		u.sendRaw(f, data, c)
	} else {
		u.put(&u.home, f, upstream, data, c)
	}
	if f.part != nil && f.answered() && !f.ending {
		f.ending = true
		u.ended = append(u.ended, f)
	}
}

// answered reports whether f has got all replies that its service expects.
func (f *udpFlow) answered() bool {
	n := f.part.svc.Responses
	return n > 0 && f.datagrams[upstream] >= uint64(n)*f.datagrams[client]
}

// sendRaw sends replies whose source address belongs to another socket.
func (u *udpWorker) sendRaw(f *udpFlow, data []byte, c *sys.Control) {
	s := &f.part.shard.udp
	raw := u.rawSocket(f.dest.v4())
	u.addr.Set(f.dest.addrPort())
	for {
		part := data
		if c.Segment > 0 && c.Segment < len(data) {
			part = data[:c.Segment]
		}
		if raw == nil || raw.Send(&u.addr, &f.peer, part) != 0 {
			s.dropped[dropSend].Add(1)
		} else {
			s.datagrams[upstream].Add(1)
		}
		if data = data[len(part):]; len(data) == 0 {
			return
		}
	}
}

// speedUp sets up a socket of f that brings many datagrams: they come in runs,
// and there is room for bursts.
func (u *udpWorker) speedUp(f *udpFlow, side int) {
	if f.fast[side] || f.datagrams[side] < streamDatagrams {
		return
	}
	f.fast[side] = true
	fd := int(f.fds[side])
	sys.SetGRO(fd)
	sys.SetInt(fd, unix.SOL_SOCKET, unix.SO_RXQ_OVFL, 1)
	sys.SetReceiveBuffer(fd, streamBuffer)
}
