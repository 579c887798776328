package proxy

import (
	"bytes"
	"net/netip"
	"testing"
	"time"

	"github.com/tproxyd/tproxyd/internal/lab"
	"github.com/tproxyd/tproxyd/internal/sys"
	"golang.org/x/sys/unix"
)

// peer is a UDP socket of a client or a server without Go's poller around it:
// it sends runs of datagrams by UDP_SEGMENT, receives datagrams one by one, and
// allocates nothing.
type peer struct {
	fd     int
	sender *sys.Sender
	rx     *sys.Receiver
	poll   [1]unix.PollFd
}

// peer opens a socket of h that is bound to local, and connected to remote if
// that is valid.
func (b *bed) peer(h *lab.Host, local, remote netip.AddrPort) *peer {
	b.t.Helper()
	p := &peer{fd: -1, sender: sys.NewSender(1), rx: sys.NewReceiver(1)}
	err := h.Do(func() error {
		var e sys.Errno
		if p.fd, e = sys.UDPSocket(sys.Family(local.Addr())); e != 0 {
			return e
		}
		var at sys.SockAddr
		at.Set(local)
		if e = sys.Bind(p.fd, &at); e != 0 || !remote.IsValid() {
			return nonZero(e)
		}
		at.Set(remote)
		return nonZero(sys.Connect(p.fd, &at))
	})
	if p.fd >= 0 {
		b.t.Cleanup(func() { sys.Close(p.fd) })
	}
	if err != nil {
		b.t.Fatal(err)
	}
	return p
}

// sendRaw sends a datagram from an address that h need not have, without a
// socket that would be in the way of what comes back.
func (b *bed) sendRaw(h *lab.Host, from, to netip.AddrPort, data []byte) {
	b.t.Helper()
	err := h.Do(func() error {
		raw, err := sys.OpenRawUDP(sys.Family(from.Addr()), 0)
		if err != nil {
			return err
		}
		defer raw.Close()
		var src, dst sys.SockAddr
		src.Set(from)
		dst.Set(to)
		return nonZero(raw.Send(&src, &dst, data))
	})
	if err != nil {
		b.t.Fatal(err)
	}
}

// nonZero is e as an error, which 0 is not.
func nonZero(e sys.Errno) error {
	if e == 0 {
		return nil
	}
	return e
}

// try sends data in datagrams of segment bytes, in one call; 0: as one.
func (p *peer) try(segment int, data []byte) sys.Errno {
	p.sender.Reset()
	p.sender.Add(nil, segment, data)
	_, e := p.sender.Send(p.fd, 0)
	return e
}

// wait reports whether fd can be read before patience ends.
func (p *peer) wait(fd int) bool { return p.waitFor(fd, patience) }

// waitFor is wait for a time of its own.
func (p *peer) waitFor(fd int, limit time.Duration) bool {
	p.poll[0] = unix.PollFd{Fd: int32(fd), Events: unix.POLLIN}
	for {
		n, err := unix.Poll(p.poll[:], max(0, int(limit/time.Millisecond)))
		if err != unix.EINTR {
			return n == 1
		}
	}
}

// next returns the next datagram, which is lent until the one after it, or nil
// and false if none comes.
func (p *peer) next() ([]byte, bool) {
	if !p.wait(p.fd) {
		return nil, false
	}
	if n, e := p.rx.Receive(p.fd, 0); e != 0 || n != 1 {
		return nil, false
	}
	return p.rx.Data(0), true
}

// expect wants the datagrams of segment bytes that data is made of, one by one
// and in order.
func (p *peer) expect(t *testing.T, segment int, data []byte) {
	t.Helper()
	for i := 0; ; i++ {
		want := data
		if segment > 0 && segment < len(data) {
			want = data[:segment]
		}
		got, ok := p.next()
		if !ok {
			t.Fatalf("datagram %d does not come", i)
		}
		if !bytes.Equal(got, want) {
			t.Fatalf("datagram %d: %d bytes, want %d, or they differ", i, len(got), len(want))
		}
		if data = data[len(want):]; len(data) == 0 {
			return
		}
	}
}

// udpWay is one way through the proxy for a UDP client.
type udpWay struct {
	service         Service
	client          netip.Addr
	address, server netip.AddrPort
}

// udpWays are the ways of both modes and families.
func udpWays() (all []udpWay) {
	const port = 4433
	for _, s := range []Service{udpVIP("any-udp", port), udpIntercept()} {
		for i, from := range []string{lab.ClientIP4, lab.ClientIP6} {
			to, at := [2]string{lab.VIP4, lab.VIP6}, [2]string{lab.ServerIP4, lab.ServerIP6}
			if s.Mode == Intercept {
				to = [2]string{lab.ForeignIP4, lab.ForeignIP6}
				at = to
			}
			all = append(all, udpWay{s, netip.MustParseAddr(from), addrPort(to[i], port), addrPort(at[i], port)})
		}
	}
	return all
}

func (w udpWay) name() string {
	if w.client.Is6() {
		return w.service.Mode.String() + "/v6"
	}
	return w.service.Mode.String() + "/v4"
}

// eachUDPWay runs test for all ways.
func eachUDPWay(t *testing.T, test func(t *testing.T, w udpWay)) {
	for _, w := range udpWays() {
		t.Run(w.name(), func(t *testing.T) { test(t, w) })
	}
}

// converse returns a client and a server that have spoken so much with each
// other that the sockets of their flow are set up for streams.
func (b *bed) converse(w udpWay) (ends [2]*peer) {
	b.t.Helper()
	server := b.peer(b.Server, w.server, netip.AddrPort{})
	c := b.peer(b.Client, netip.AddrPortFrom(w.client, 50000), w.address)
	ends = [2]*peer{client: c, upstream: server}
	for i := range streamDatagrams {
		b.pass(ends, client, 0, []byte("ping"))
		if i == 0 {
			if e := sys.Connect(server.fd, server.rx.From(0)); e != 0 {
				b.t.Fatal(e)
			}
		}
		b.pass(ends, upstream, 0, []byte("pong"))
	}
	for side := range ends {
		b.passed(w.service.Name, side, udpCounts{}, streamDatagrams)
	}
	return ends
}

// pass has a run sent from one end arrive as it is at the other one.
func (b *bed) pass(ends [2]*peer, from, segment int, data []byte) {
	b.t.Helper()
	if e := ends[from].try(segment, data); e != 0 {
		b.t.Fatalf("send %d bytes in datagrams of %d: %v", len(data), segment, e)
	}
	ends[1-from].expect(b.t, segment, data)
}

// passed waits until the proxy has booked all of n datagrams, and returns how
// many of them it sent by UDP_SEGMENT. What it sends is seen before it is
// booked.
func (b *bed) passed(service string, from int, before udpCounts, n int) (segmented uint64) {
	b.t.Helper()
	eventually(b.t, func() bool {
		c := b.udpCounts(service)
		all, start := [2]uint64{c.in, c.out}, [2]uint64{before.in, before.out}
		runs, old := [2]uint64{c.gsoIn, c.gsoOut}, [2]uint64{before.gsoIn, before.gsoOut}
		segmented = runs[from] - old[from]
		return all[from]-start[from] == uint64(n)
	}, "the datagrams are booked")
	return segmented
}
