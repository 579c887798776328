package sys

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// SockError is an entry of a socket's error queue: struct sock_extended_err
// and the addresses with it (IP_RECVERR, ip(7)).
type SockError struct {
	Errno  Errno
	Origin uint8  // unix.SO_EE_ORIGIN_LOCAL, _ICMP, _ICMP6
	Type   uint8  // of the ICMP message
	Code   uint8  // of the ICMP message
	Info   uint32 // EMSGSIZE: the MTU
	// Dest is where the datagram went that caused the error.
	Dest SockAddr
	// Offender is who reported it, without a port; not set for a local error.
	Offender SockAddr
	// Payload is the beginning of that datagram, as far as the ICMP message
	// had it and the caller's buffer goes.
	Payload []byte
}

// ReadError takes the oldest entry of the error queue of fd, on which
// SetRecvErr was called. EAGAIN: there are no more. The datagram's content
// goes to payload, which may be nil.
//
// An ICMP error is also the answer to the next call on the socket, once. Which
// of the two comes first does not matter here: the entry stays, and reading
// the last one takes the answer away.
func ReadError(fd int, payload []byte) (SockError, Errno) {
	var s SockError
	var control [256]byte
	iov := Iovec(payload)
	m := unix.Msghdr{Name: s.Dest.name(), Namelen: unix.SizeofSockaddrInet6, Iov: &iov, Control: &control[0]}
	m.SetIovlen(1)
	m.SetControllen(len(control))
	n, e := recvError(fd, &m)
	if e != 0 {
		return SockError{}, e
	}
	s.Dest.len = m.Namelen
	s.Payload = payload[:n]
	s.parse(control[:m.Controllen])
	return s, 0
}

// parse finds the sock_extended_err among the control messages in b.
func (s *SockError) parse(b []byte) {
	for {
		m, rest, ok := nextCmsg(b)
		if !ok {
			return
		}
		b = rest
		v4 := m.level == unix.SOL_IP && m.kind == unix.IP_RECVERR
		v6 := m.level == unix.SOL_IPV6 && m.kind == unix.IPV6_RECVERR
		if (v4 || v6) && len(m.data) >= sizeofExtendedErr {
			s.take(m.data)
		}
	}
}

// sizeofExtendedErr is the size of struct sock_extended_err, behind which the
// offender's address lies (SO_EE_OFFENDER).
const sizeofExtendedErr = 16

func (s *SockError) take(b []byte) {
	s.Errno = Errno(binary.NativeEndian.Uint32(b))
	s.Origin, s.Type, s.Code = b[4], b[5], b[6]
	s.Info = binary.NativeEndian.Uint32(b[8:])
	if !s.Offender.parse(b[sizeofExtendedErr:]) {
		s.Offender = SockAddr{}
	}
}
