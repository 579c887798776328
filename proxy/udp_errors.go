package proxy

import (
	"time"

	"github.com/tproxyd/tproxyd/internal/sys"
	"golang.org/x/sys/unix"
)

// icmpPerSecond bounds the ICMP errors that a worker sends: what the kernel
// allows itself (net.ipv4.icmp_msgs_per_sec).
const icmpPerSecond = 1000

// icmpHead is how much of a datagram is told to its sender with an error.
const icmpHead = 512

// readErrors takes the ICMP errors that a socket of f has got.
func (u *udpWorker) readErrors(f *udpFlow, side int) {
	if side == client {
		u.clientError(f, sys.SocketError(int(f.fds[client])))
		return
	}
	var payload [icmpHead]byte
	for f.part != nil {
		se, e := sys.ReadError(int(f.fds[upstream]), payload[:])
		if e != 0 {
			break
		}
		if se.Origin != unix.SO_EE_ORIGIN_LOCAL || se.Errno == unix.EHOSTUNREACH {
			u.upstreamError(f, &se)
		}
	}
	if f.part != nil {
		// The queue has them all; this is the copy that the next send would
		// get in place of being done.
		sys.SocketError(int(f.fds[upstream]))
	}
}

// readListenerErrors takes the ICMP errors about replies that left by l. What
// routers say of the path's MTU goes on to the upstream: for packets with a
// source that is not its own the kernel does not keep it (IPv4). Other errors
// are ignored, as anybody could make them up to end others' flows.
func (u *udpWorker) readListenerErrors(l *udpListener) {
	var payload [icmpHead]byte
	for {
		se, e := sys.ReadError(l.fd, payload[:])
		if e != 0 {
			break
		}
		f := l.table.flows[addrPair{endpointOf(&se.Dest), l.addr}]
		if f == nil || se.Errno != unix.EMSGSIZE || se.Origin == unix.SO_EE_ORIGIN_LOCAL {
			continue
		}
		f.part.shard.udp.dropped[dropTooBig].Add(1)
		mtu := int(se.Info)
		u.tellTooBig(f.target(), f.source.addrPort(), max(mtu, len(se.Payload)), mtu, se.Payload)
	}
	sys.SocketError(l.fd)
}

// clientError handles an error of f's own client socket. ECONNREFUSED says that
// the client has closed its port.
func (u *udpWorker) clientError(f *udpFlow, e sys.Errno) {
	if e == unix.ECONNREFUSED {
		u.end(f, ClientReset)
	}
}

// upstreamError handles an ICMP error about a datagram of f's client.
func (u *udpWorker) upstreamError(f *udpFlow, se *sys.SockError) {
	switch se.Errno {
	case unix.ECONNREFUSED:
		f.backend.results[resultRefused].Add(1)
		u.failed(&f.head, failureUnreachable)
		if icmp := u.icmp(); icmp != nil && !f.named {
			icmp.PortUnreachable(f.client.addrPort(), f.dest.addrPort(), se.Payload)
		}
		u.end(f, PortUnreachable)
	case unix.EMSGSIZE:
		f.part.shard.udp.dropped[dropTooBig].Add(1)
		if f.named || f.part.svc.SendProxy > 0 {
			return // its client is not whom we speak to, or sends less than what was too big
		}
		// How large it was nobody tells, but it was larger than that.
		mtu := int(se.Info)
		u.tellTooBig(f.client.addrPort(), f.dest.addrPort(), max(mtu, len(se.Payload)), mtu, se.Payload)
	case unix.EHOSTUNREACH, unix.ENETUNREACH, unix.EACCES, unix.ENOPROTOOPT, unix.EHOSTDOWN, unix.ENONET, unix.EOPNOTSUPP:
		// May pass by, while replies came before (RFC 1122, section 4.2.3.9).
		if f.datagrams[upstream] == 0 {
			f.backend.results[resultUnreachable].Add(1)
			u.failed(&f.head, failureUnreachable)
			u.end(f, ConnectUnreachable)
		}
	default:
	}
}

// icmp returns what ICMP errors are sent by, or nil if no more are to be sent
// for the moment.
func (u *udpWorker) icmp() *sys.ICMP {
	if now := u.loop.Now(); u.icmpFrom == 0 || now-u.icmpFrom > int64(time.Second) {
		u.icmpFrom, u.icmpLeft = now, icmpPerSecond
	}
	if u.icmpLeft == 0 {
		return nil
	}
	u.icmpLeft--
	if u.icmpOut == nil {
		out, err := sys.OpenICMP(u.proxy.mark.Load())
		if err != nil {
			u.proxy.report(event{kind: eventRaw, err: err})
			return nil
		}
		u.icmpOut = out
	}
	return u.icmpOut
}

// rawSocket returns the raw socket of a family, or nil.
func (u *udpWorker) rawSocket(v4 bool) *sys.RawUDP {
	i, family := 1, unix.AF_INET6
	if v4 {
		i, family = 0, unix.AF_INET
	}
	if u.raws[i] == nil {
		raw, err := sys.OpenRawUDP(family, u.proxy.mark.Load())
		if err != nil {
			u.proxy.report(event{kind: eventRaw, err: err})
			return nil
		}
		u.raws[i] = raw
	}
	return u.raws[i]
}
