package proxy

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/tproxyd/tproxyd/internal/balance"
	"github.com/tproxyd/tproxyd/internal/sys"
	"golang.org/x/sys/unix"
)

// connectUpstream opens the upstream leg of f: to its original destination, or
// to a backend towards which its source address is free.
func (u *udpWorker) connectUpstream(f *udpFlow) drop {
	svc := f.part.svc
	if svc.original() {
		f.chooseOriginal()
		return u.dialUDP(f)
	}
	why := dropNoBackend
	for f.tried.Len() < balance.MaxTries {
		if !u.choose(&f.head) {
			if why == dropNoBackend && f.selector().Full(&f.tried) {
				return dropBackendsFull
			}
			return why
		}
		switch why = u.dialUDP(f); why {
		case dropNone, dropResources, dropDenied:
			return why
		default:
		}
	}
	return why
}

// dialUDP makes the upstream socket of f, or says why it cannot be.
func (u *udpWorker) dialUDP(f *udpFlow) drop {
	why := u.tryUpstream(f)
	if why == dropConflict {
		f.part.shard.conflicts.Add(1)
		f.backend.results[resultConflict].Add(1)
		if f.policy == PreferClient {
			f.policy = ClientIP
			if why = u.tryUpstream(f); why != dropNone {
				f.policy = PreferClient // towards the next backend its port may be free
			}
		}
	}
	if why == dropUnreachable {
		f.backend.results[resultUnreachable].Add(1)
		u.failed(&f.head, failureUnreachable)
	}
	return why
}

// tryUpstream makes the upstream socket of f with the source of its policy.
func (u *udpWorker) tryUpstream(f *udpFlow) drop {
	target := f.target()
	keeps := f.policy == Client || f.policy == PreferClient
	if keeps {
		// The socket of a client on this host has its address and port itself.
		if f.local && f.part.svc.Mode == Intercept || !u.proxy.tuples.claim(addrPair{f.client, f.to()}) {
			return u.tapFailed(f, dropConflict)
		}
		f.source = f.client
	}
	fd, e := u.socket(sys.Family(target.Addr()))
	if e == 0 {
		f.fds[upstream] = int32(fd)
		if e = u.bindUDP(f, fd); e == 0 {
			u.addr.Set(target)
			e = sys.Connect(fd, &u.addr)
		}
	}
	if e == 0 && !keeps {
		e = u.claimLocal(f, fd)
	}
	if e == 0 {
		// Without it a socket is told of fewer ICMP errors (ip(7)).
		if e = sys.SetRecvErr(fd, sys.Family(target.Addr())); e == 0 {
			e = u.watchLeg(f, upstream)
		}
	}
	if e == 0 {
		u.tapDialing(f)
		return dropNone
	}
	u.closeSocket(f, upstream)
	u.unclaim(f)
	return u.tapFailed(f, openFailed(e))
}

// socket opens a UDP socket. If descriptors have run out, the flow that is
// missed least gives its own.
func (u *udpWorker) socket(family int) (int, sys.Errno) {
	fd, e := sys.UDPSocket(family)
	if (e == unix.EMFILE || e == unix.ENFILE) && u.evict(u.fullest(), evictDescriptors) {
		u.proxy.report(event{kind: eventResources, err: e})
		fd, e = sys.UDPSocket(family)
	}
	if e != 0 {
		u.proxy.report(event{kind: eventResources, err: e})
		return -1, e
	}
	u.stats.flowSockets.Add(1)
	return fd, 0
}

// bindUDP gives fd, which is to be connected to f's target, the source of f's
// policy.
func (u *udpWorker) bindUDP(f *udpFlow, fd int) sys.Errno {
	if e := u.setMark(f.part.svc, fd); e != 0 || f.policy == Host {
		return e
	}
	from := f.client.addrPort()
	if f.policy == ClientIP {
		from = netip.AddrPortFrom(from.Addr(), 0)
	}
	if sys.Family(from.Addr()) != sys.Family(f.target().Addr()) {
		return unix.EAFNOSUPPORT
	}
	return u.bindTransparent(fd, from)
}

// bindTransparent binds fd to an address that need not be the host's own. A
// port other than 0 may be shared with other sockets that are connected to
// other peers, and with listeners of ours.
func (u *udpWorker) bindTransparent(fd int, to netip.AddrPort) sys.Errno {
	if e := sys.SetTransparent(fd, sys.Family(to.Addr())); e != 0 {
		return e
	}
	if to.Port() != 0 {
		if e := sys.SetInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); e != 0 {
			return e
		}
	}
	u.addr.Set(to)
	return sys.Bind(fd, &u.addr)
}

// claimLocal learns the source that the kernel has chosen and enters it, where
// it is of use: so that a rule that brings our own datagrams back is noticed,
// for the access record, and for the tap.
func (u *udpWorker) claimLocal(f *udpFlow, fd int) sys.Errno {
	svc := f.part.svc
	if svc.Mode != Intercept && !svc.records && u.tap == nil {
		return 0
	}
	if e := sys.LocalName(fd, &u.addr); e != 0 {
		return e
	}
	source := endpointOf(&u.addr)
	if !u.proxy.tuples.claim(addrPair{source, f.to()}) {
		return unix.EADDRINUSE
	}
	f.source = source
	return 0
}

// unclaim gives back the 4-tuple of f's upstream socket.
func (u *udpWorker) unclaim(f *udpFlow) {
	if f.source != (endpoint{}) {
		u.proxy.tuples.release(addrPair{f.source, f.to()})
		f.source = endpoint{}
	}
}

// connectClient opens the client leg of f, if its replies cannot leave by the
// listener: they have to come from the address that the client spoke to.
// The flow before it hands over its own.
func (u *udpWorker) connectClient(f, old *udpFlow) drop {
	if f.dest == f.listener.addr {
		return dropNone
	}
	// Other clients' datagrams may come from the same peer.
	if f.part.svc.AcceptProxy != ProxyOff {
		if u.rawSocket(f.dest.v4()) == nil {
			return dropResources
		}
		f.raw = true
		return dropNone
	}
	if old != nil && old.part != nil && old.fds[client] >= 0 {
		// An error of the last replies may end old.
		if u.leave(&u.home, int(old.fds[client])); old.part != nil {
			return u.takeClient(f, old)
		}
	}
	// The client's next question would be lost in a socket that is closed with
	// the answer to the last one.
	if f.part.svc.Responses > 0 && u.rawSocket(f.dest.v4()) != nil {
		f.raw = true
		return dropNone
	}
	dest := f.dest.addrPort()
	fd, e := u.socket(sys.Family(dest.Addr()))
	if e != 0 {
		return openFailed(e)
	}
	f.fds[client] = int32(fd)
	if e = u.setMark(f.part.svc, fd); e == 0 {
		e = u.bindTransparent(fd, dest)
	}
	if e == unix.EADDRINUSE {
		u.closeSocket(f, client)
		return u.replyRaw(f, e)
	}
	if e == 0 {
		e = sys.Connect(fd, &f.peer)
	}
	if e == 0 {
		e = sys.SetPacketInfo(fd, sys.Family(dest.Addr()))
	}
	if e == 0 {
		e = u.watchLeg(f, client)
	}
	return openFailed(e)
}

// takeClient makes the client socket of old that of f. Replies that old still
// gets leave by a raw socket.
func (u *udpWorker) takeClient(f, old *udpFlow) drop {
	if err := u.loop.Remove(int(old.fds[client])); err != nil {
		return dropResources
	}
	f.fds[client], old.fds[client], old.raw = old.fds[client], -1, true
	f.fast[client], f.overflowed[client] = old.fast[client], old.overflowed[client]
	return openFailed(u.watchLeg(f, client))
}

// replyRaw has f's replies sent by a raw socket. Another program's socket has
// the address that they come from; what the client sends keeps coming to the
// listener.
func (u *udpWorker) replyRaw(f *udpFlow, e sys.Errno) drop {
	if u.rawSocket(f.dest.v4()) == nil {
		return dropConflict
	}
	f.raw = true
	u.proxy.report(event{kind: eventReplyAddress, service: f.part.svc.Name, err: fmt.Errorf("bind %v: %w", f.dest.addrPort(), e)})
	return dropNone
}

// watchLeg has the loop tell when there is something to be had from a socket of
// f.
func (u *udpWorker) watchLeg(f *udpFlow, side int) sys.Errno {
	var e sys.Errno
	errors.As(u.loop.Add(int(f.fds[side]), udpEvents, f.tag(side)), &e)
	return e
}

// openFailed names the error of a socket that could not be made (bind(2),
// connect(2), udp(7)).
func openFailed(e sys.Errno) drop {
	switch e {
	case 0:
		return dropNone
	case unix.EADDRINUSE, unix.EADDRNOTAVAIL, unix.EAGAIN: // EAGAIN: no free port
		return dropConflict
	case unix.ENETUNREACH, unix.EHOSTUNREACH, unix.ENETDOWN, unix.EHOSTDOWN:
		return dropUnreachable
	case unix.EACCES, unix.EPERM:
		return dropDenied
	case unix.EAFNOSUPPORT:
		return dropNoBackend
	}
	return dropResources
}
