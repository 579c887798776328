package proxy

import (
	"github.com/tproxyd/tproxyd/internal/proxyproto"
	"github.com/tproxyd/tproxyd/internal/sys"
)

// Of UDP services each datagram has a PROXY header of its own, as a receiver
// has nothing else to know the flow by.

// unwrap takes the PROXY header off a datagram that came from the address from,
// and puts the client that it names into key. Of who may not send one, it
// refuses what begins with one: the backend might believe it.
func (u *udpWorker) unwrap(l *udpListener, from *sys.SockAddr, key *addrPair, data []byte) ([]byte, drop) {
	svc := l.part.svc
	if !svc.trusts(from.AddrPort().Addr()) {
		var s proxyproto.Signature
		if svc.AcceptProxy == ProxyRequire || s.Scan(data) == proxyproto.Present {
			return nil, dropProxyHeader
		}
		return data, dropNone
	}
	h, n, err := proxyproto.Parse(data)
	if err != nil || h.Version == 1 || !h.Local && !h.Datagram {
		return nil, dropProxyHeader
	}
	named := head{part: l.part, client: key.from}
	if !named.adopt(&h) {
		return nil, dropProxyHeader
	}
	key.from = named.client
	return data[n:], dropNone
}

// wrappedSize is the memory for datagrams with headers that wait to be sent.
const wrappedSize = 1 << 20

// putProxied adds what the client of f has sent to the outbox, each datagram
// behind a PROXY header.
func (u *udpWorker) putProxied(f *udpFlow, data []byte, c *sys.Control) {
	if u.wrapped == nil {
		u.wrapped = make([]byte, 0, wrappedSize)
	}
	alone := sys.Control{Fragment: c.Fragment}
	for first := true; first || len(data) > 0; first = false {
		d := data
		if c.Segment > 0 && c.Segment < len(data) {
			d = data[:c.Segment]
		}
		data = data[len(d):]
		header := u.proxyHeader(&f.head, f.part.svc.SendProxy, nil)
		if len(header)+len(d) > sys.MaxRun {
			f.part.shard.udp.dropped[dropTooBig].Add(1)
			continue
		}
		// What is in the outbox refers to u.wrapped: put must not be the one to
		// flush, as the memory is used again from then on.
		if u.out.sender.Full() || len(u.wrapped)+len(header)+len(d) > cap(u.wrapped) {
			if u.flush(&u.out); f.part == nil {
				return // an error of what was sent has ended it
			}
		}
		start := len(u.wrapped)
		u.wrapped = append(append(u.wrapped, header...), d...)
		if u.put(&u.out, f, client, u.wrapped[start:], &alone); f.part == nil {
			return
		}
	}
}
