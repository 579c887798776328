package mirror

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tproxyd/tproxyd/internal/sys"
	"github.com/tproxyd/tproxyd/zcsend/encap"
)

// sendBuffer is enough for bursts of several batches.
const sendBuffer = 4 << 20

// remote sends frames to a collector, by a raw socket that takes whole IP
// packets (IPPROTO_RAW, raw(7)): the kernel finds the way, and the next hop's
// address.
type remote struct {
	encoder *encap.Encoder
	count   *counters
	fd      int
	v6      bool
	to      sys.SockAddr
	mtu     int

	packets  []encap.Packet
	heads    []byte
	frames   []queued
	messages []sys.Message
	iovecs   [][2]unix.Iovec // of a packet: its headers, and its part of a frame
	patience time.Duration
}

// queued is a frame, and where its packets end.
type queued struct{ size, end int }

// sourceFor is the address that the kernel would take to send to another.
func sourceFor(to netip.Addr) (netip.Addr, error) {
	c, err := net.Dial("udp", netip.AddrPortFrom(to, encap.Port).String())
	if err != nil {
		return netip.Addr{}, err
	}
	defer func() { _ = c.Close() }() // nothing was sent
	return c.LocalAddr().(*net.UDPAddr).AddrPort().Addr().Unmap(), nil
}

func openRemote(cfg *Config, count *counters) (output, error) {
	source, err := sourceFor(cfg.Collector)
	if err != nil {
		return nil, fmt.Errorf("find way to collector: %w", err)
	}
	e, err := encap.New(encap.Config{
		Kind: cfg.Kind, Source: source, Destination: cfg.Collector, ID: cfg.ID, Index: cfg.Index, Port: cfg.Port,
	})
	if err != nil {
		return nil, err
	}
	r := &remote{encoder: e, count: count, v6: cfg.Collector.Is6(), patience: patience}
	r.to.Set(netip.AddrPortFrom(cfg.Collector, 0))
	family := unix.AF_INET
	if r.v6 {
		family = unix.AF_INET6
	}
	r.fd, err = unix.Socket(family, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
	if err != nil {
		return nil, os.NewSyscallError("socket(IPPROTO_RAW)", err)
	}
	if sys.SetInt(r.fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, sendBuffer) != 0 {
		_ = sys.SetInt(r.fd, unix.SOL_SOCKET, unix.SO_SNDBUF, sendBuffer) // as much as is allowed
	}
	if err := errors.Join(r.honest(), r.connect()); err != nil {
		sys.Close(r.fd)
		return nil, err
	}
	return r, nil
}

// honest makes the kernel say when the queue behind the socket drops a packet,
// which it keeps to itself otherwise (raw_send_hdrinc(), ENOBUFS).
func (r *remote) honest() error {
	level, option := unix.IPPROTO_IP, unix.IP_RECVERR
	if r.v6 {
		level, option = unix.IPPROTO_IPV6, unix.IPV6_RECVERR
	}
	if e := sys.SetInt(r.fd, level, option, 1); e != 0 {
		return os.NewSyscallError("setsockopt(IP_RECVERR)", e)
	}
	return nil
}

// connect looks for the way to the collector, and how long its packets may be.
func (r *remote) connect() error {
	if e := sys.Connect(r.fd, &r.to); e != 0 {
		return os.NewSyscallError("connect", e)
	}
	level, option := unix.IPPROTO_IP, unix.IP_MTU
	if r.v6 {
		level, option = unix.IPPROTO_IPV6, unix.IPV6_MTU
	}
	mtu, err := unix.GetsockoptInt(r.fd, level, option)
	if err != nil {
		return os.NewSyscallError("getsockopt(IP_MTU)", err)
	}
	r.mtu = mtu
	return nil
}

func (r *remote) takes([]byte, int) bool { return false }

func (r *remote) put(data []byte, _ int, cut bool) {
	var err error
	r.packets, r.heads, err = r.encoder.Encode(r.packets, r.heads, data, cut, r.mtu)
	if err != nil {
		r.count.drop(TooLong, 1)
		return
	}
	r.frames = append(r.frames, queued{len(data), len(r.packets)})
	if len(r.packets) >= batch {
		r.flush()
	}
}

// flush sends all packets. Those of a frame that are behind a refused one are
// not sent.
func (r *remote) flush() {
	if len(r.frames) == 0 {
		return
	}
	r.describe()
	at, first, took := 0, 0, false // message, frame
	deadline := time.Now().Add(r.patience)
	for first < len(r.frames) {
		n, e := sys.SendMessages(r.fd, r.messages[at:])
		at += n
		took = took || n > 0
		for first < len(r.frames) && r.frames[first].end <= at {
			r.count.sent(1, r.frames[first].size)
			first++
		}
		switch {
		case e == 0 || e == unix.EINTR:
		case (e == unix.EAGAIN || e == unix.ENOBUFS) && r.wait(e, deadline):
		default:
			r.refused(e)
			at = r.frames[first].end
			first++
		}
	}
	// Who has been waited for in vain is not waited for again, until it takes
	// something: the ring would fill up meanwhile.
	if r.patience = patience; !took {
		r.patience = 0
	}
	clear(r.packets)
	r.packets, r.heads, r.frames = r.packets[:0], r.heads[:0], r.frames[:0]
}

// describe makes messages of the packets.
func (r *remote) describe() {
	if n := len(r.packets); cap(r.iovecs) < n {
		r.iovecs, r.messages = make([][2]unix.Iovec, n), make([]sys.Message, n)
	}
	r.iovecs, r.messages = r.iovecs[:len(r.packets)], r.messages[:len(r.packets)]
	for i, p := range r.packets {
		r.iovecs[i] = [2]unix.Iovec{sys.Iovec(p.Head), sys.Iovec(p.Body)}
		r.messages[i] = sys.Message{}
		r.messages[i].Hdr.Iov = &r.iovecs[i][0]
		r.messages[i].Hdr.SetIovlen(len(r.iovecs[i]))
	}
}

// wait waits for room. It is false if there is none for too long.
func (r *remote) wait(e sys.Errno, deadline time.Time) bool {
	left := time.Until(deadline)
	if left <= 0 {
		return false
	}
	if e == unix.ENOBUFS { // of a queue behind the socket, which wakes nobody
		time.Sleep(min(left, time.Millisecond))
		return true
	}
	_, err := unix.Poll([]unix.PollFd{{Fd: int32(r.fd), Events: unix.POLLOUT}}, int(left.Milliseconds())+1)
	return err == nil || errors.Is(err, unix.EINTR)
}

// refused counts a frame that the kernel did not take.
func (r *remote) refused(e sys.Errno) {
	reason := Failed
	switch e {
	case unix.EAGAIN, unix.ENOBUFS:
		reason = Overload
	case unix.EMSGSIZE:
		reason = TooLong
		_ = r.connect() // the way is another; those that are next will be right
	case unix.ENETDOWN, unix.ENETUNREACH, unix.EHOSTUNREACH, unix.ENODEV, unix.EADDRNOTAVAIL:
		reason = LinkDown
	}
	r.count.drop(reason, 1)
}

func (r *remote) close() error {
	sys.Close(r.fd)
	return nil
}
