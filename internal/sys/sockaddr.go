package sys

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// Parts takes the address apart without allocating: the address as
// netip.Addr.As16 gives it, the zone of a link-local one, and the port. A
// v4-mapped address counts as v4, with or without a socket that maps.
func (a *SockAddr) Parts() (ip [16]byte, zone uint32, port uint16, v4 bool) {
	port = a.port()
	if a.raw.Family == unix.AF_INET {
		return mapped(a.inet4().Addr), 0, port, true
	}
	ip = a.raw.Addr
	if [12]byte(ip[:12]) == mappedPrefix {
		return ip, 0, port, true
	}
	return ip, a.raw.Scope_id, port, false
}

// Equal says whether both are the same address and port; v4 and v4-mapped v6
// are.
func (a *SockAddr) Equal(b *SockAddr) bool {
	ip, zone, port, _ := a.Parts()
	ip2, zone2, port2, _ := b.Parts()
	return ip == ip2 && port == port2 && zone == zone2 && a.IsSet() == b.IsSet()
}

// IsSet says whether there is an address; the zero SockAddr has none.
func (a *SockAddr) IsSet() bool {
	return a.raw.Family == unix.AF_INET || a.raw.Family == unix.AF_INET6
}

// mappedPrefix begins a v4-mapped v6 address (RFC 4291, 2.5.5.2).
var mappedPrefix = [12]byte{10: 0xff, 11: 0xff}

func mapped(v4 [4]byte) (ip [16]byte) {
	copy(ip[:], mappedPrefix[:])
	copy(ip[12:], v4[:])
	return ip
}

// port is in network byte order in memory, so it is read as it lies there.
func (a *SockAddr) port() uint16 {
	var b [2]byte
	binary.NativeEndian.PutUint16(b[:], a.raw.Port)
	return binary.BigEndian.Uint16(b[:])
}

// parse stores the struct sockaddr_in or sockaddr_in6 that b begins with, and
// says whether there is one.
func (a *SockAddr) parse(b []byte) bool {
	if len(b) < 2 {
		return false
	}
	switch binary.NativeEndian.Uint16(b) {
	case unix.AF_INET:
		if len(b) < unix.SizeofSockaddrInet4 {
			return false
		}
		a.raw = unix.RawSockaddrInet6{Family: unix.AF_INET, Port: binary.NativeEndian.Uint16(b[2:])}
		a.inet4().Addr = [4]byte(b[4:])
		a.len = unix.SizeofSockaddrInet4
		return true
	case unix.AF_INET6:
		if len(b) < unix.SizeofSockaddrInet6 {
			return false
		}
		a.raw = unix.RawSockaddrInet6{
			Family:   unix.AF_INET6,
			Port:     binary.NativeEndian.Uint16(b[2:]),
			Addr:     [16]byte(b[8:]),
			Scope_id: binary.NativeEndian.Uint32(b[24:]),
		}
		a.len = unix.SizeofSockaddrInet6
		return true
	}
	return false
}
