package zcsend

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/tproxyd/tproxyd/internal/packet"
	"github.com/tproxyd/tproxyd/internal/sys"
)

// maxUDPSockets bounds how many conversations have a socket at one time.
const maxUDPSockets = 256

// udpSockets are one connected UDP socket for each conversation, bound to its
// source, whosever that is. The kernel makes the headers, and its own choice
// of what is not the conversation's: TTL, identification, DF.
//
// While a conversation has its socket, what comes back for it ends there and
// is thrown away.
type udpSockets struct {
	device string
	open   map[conversation]*udpSocket
	last   conversation
	clock  uint64
	ask    int
}

type conversation struct{ src, dst netip.AddrPort }

type udpSocket struct {
	fd   int
	used uint64
}

func newUDPSockets(dev *device) *udpSockets {
	return &udpSockets{device: dev.name, ask: -1, open: make(map[conversation]*udpSocket)}
}

func (u *udpSockets) accepts(frame []byte, l *packet.Layout) error {
	if l.Protocol != unix.IPPROTO_UDP || l.Payload == 0 || l.Fragment {
		return fmt.Errorf("%w: %s takes whole UDP datagrams only", ErrFormat, SpliceUDP)
	}
	if n := int(binary.BigEndian.Uint16(frame[l.L4+4:])); n < packet.UDPHeader || l.L4+n > l.End {
		return fmt.Errorf("%w: UDP length %d", ErrFormat, n)
	}
	return nil
}

func (u *udpSockets) connected(frame []byte, l *packet.Layout) (int, []byte, sys.Errno) {
	src, dst := l.Addresses(frame)
	c := conversation{
		addrPort(src, frame[l.L4:]),
		addrPort(dst, frame[l.L4+2:]),
	}
	end := l.L4 + int(binary.BigEndian.Uint16(frame[l.L4+4:]))
	s := u.open[c]
	if s == nil {
		var e sys.Errno
		if s, e = u.dial(c); e != 0 {
			return -1, nil, e
		}
	}
	u.clock++
	s.used, u.last = u.clock, c
	return s.fd, frame[l.Payload:end], 0
}

func addrPort(ip, port []byte) netip.AddrPort {
	a, _ := netip.AddrFromSlice(ip)
	return netip.AddrPortFrom(a, binary.BigEndian.Uint16(port))
}

func (u *udpSockets) dial(c conversation) (*udpSocket, sys.Errno) {
	for len(u.open) >= maxUDPSockets {
		u.closeOldest()
	}
	family := unix.AF_INET
	if c.src.Addr().Is6() {
		family = unix.AF_INET6
	}
	fd, err := u.bound(family, c.src)
	if err != nil {
		return nil, errnoOf(err)
	}
	var to sys.SockAddr
	to.Set(netip.AddrPortFrom(scoped(c.dst.Addr(), u.device), c.dst.Port()))
	if e := sys.Connect(fd, &to); e != 0 {
		sys.Close(fd)
		return nil, e
	}
	s := &udpSocket{fd: fd}
	u.open[c] = s
	return s, 0
}

func (u *udpSockets) bound(family int, src netip.AddrPort) (int, error) {
	fd, err := openRouted(u.device, family, unix.SOCK_DGRAM, unix.IPPROTO_UDP)
	if err != nil {
		return -1, err
	}
	var from sys.SockAddr
	from.Set(netip.AddrPortFrom(scoped(src.Addr(), u.device), src.Port()))
	for _, o := range []int{unix.SO_REUSEADDR, unix.SO_REUSEPORT} {
		if e := sys.SetInt(fd, unix.SOL_SOCKET, o, 1); e != 0 {
			sys.Close(fd)
			return -1, e
		}
	}
	if e := sys.Bind(fd, &from); e != 0 {
		sys.Close(fd)
		return -1, e
	}
	return fd, nil
}

// errnoOf is the errno in an error of openRouted's, which always has one.
func errnoOf(err error) sys.Errno {
	if e, ok := errors.AsType[sys.Errno](err); ok {
		return e
	}
	return unix.EIO
}

func (u *udpSockets) closeOldest() {
	var oldest conversation
	least := ^uint64(0)
	for c, s := range u.open {
		if s.used < least {
			oldest, least = c, s.used
		}
	}
	u.closeOne(oldest)
}

func (u *udpSockets) closeOne(c conversation) {
	if s := u.open[c]; s != nil {
		sys.Close(s.fd)
		delete(u.open, c)
	}
}

func (u *udpSockets) forget()  { u.closeOne(u.last) }
func (u *udpSockets) any() int { return u.ask }

func (u *udpSockets) reopen() error {
	u.close()
	// Finds out at once what is not allowed or not there.
	fd, err := openRouted(u.device, unix.AF_INET, unix.SOCK_DGRAM, unix.IPPROTO_UDP)
	u.ask = fd
	return err
}

func (u *udpSockets) close() {
	for c := range u.open {
		u.closeOne(c)
	}
	if u.ask >= 0 {
		sys.Close(u.ask)
		u.ask = -1
	}
}
