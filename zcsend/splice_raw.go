package zcsend

import (
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/tproxyd/tproxyd/internal/packet"
	"github.com/tproxyd/tproxyd/internal/sys"
)

// rawSockets are one raw socket for each family. It gets whole packets with
// their IP headers (IP_HDRINCL, which IPPROTO_RAW implies, raw(7)), so the
// source may be anybody's. The address it is connected to only chooses the
// route: splice has no other way to name one.
type rawSockets struct {
	device string
	v4, v6 rawSocket
	last   *rawSocket
}

type rawSocket struct {
	fd        int
	connected bool
	to        netip.Addr
}

func newRawSockets(dev *device) *rawSockets {
	return &rawSockets{device: dev.name, v4: rawSocket{fd: -1}, v6: rawSocket{fd: -1}}
}

func (r *rawSockets) accepts([]byte, *packet.Layout) error { return nil }

func (r *rawSockets) connected(frame []byte, l *packet.Layout) (int, []byte, sys.Errno) {
	s, family := &r.v4, unix.AF_INET
	if l.V6 {
		s, family = &r.v6, unix.AF_INET6
	}
	r.last = s
	if s.fd < 0 {
		// Not at the beginning: the host may run without IPv6.
		fd, err := openRouted(r.device, family, unix.SOCK_RAW, unix.IPPROTO_RAW)
		if err != nil {
			return -1, nil, errnoOf(err)
		}
		s.fd = fd
	}
	_, dst := l.Addresses(frame)
	to, _ := netip.AddrFromSlice(dst)
	if !s.connected || s.to != to {
		var a sys.SockAddr
		a.Set(netip.AddrPortFrom(scoped(to, r.device), 0))
		if e := sys.Connect(s.fd, &a); e != 0 {
			s.connected = false
			return -1, nil, e
		}
		s.connected, s.to = true, to
	}
	return s.fd, frame[l.L3:l.End], 0
}

// scoped names the interface of an address that means nothing without one.
func scoped(a netip.Addr, device string) netip.Addr {
	if a.Is6() && (a.IsLinkLocalUnicast() || a.IsLinkLocalMulticast() || a.IsInterfaceLocalMulticast()) {
		return a.WithZone(device)
	}
	return a
}

func (r *rawSockets) forget()  { r.last.connected = false }
func (r *rawSockets) any() int { return r.v4.fd }

func (r *rawSockets) reopen() error {
	r.close()
	fd, err := openRouted(r.device, unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_RAW)
	r.v4 = rawSocket{fd: fd}
	return err
}

func (r *rawSockets) close() {
	for _, s := range []*rawSocket{&r.v4, &r.v6} {
		if s.fd >= 0 {
			sys.Close(s.fd)
		}
		*s = rawSocket{fd: -1}
	}
}
