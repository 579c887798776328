package sys

import (
	"encoding/binary"
	"net"
	"net/netip"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

// SockAddr is a socket address in the kernel's layout, v4 or v6. It is reused
// from call to call, so that no call allocates.
type SockAddr struct {
	raw unix.RawSockaddrInet6 // large enough for both families
	len uint32
}

// Set stores ap. A v4-mapped address counts as v4.
func (a *SockAddr) Set(ap netip.AddrPort) {
	ip := ap.Addr().Unmap()
	a.raw = unix.RawSockaddrInet6{}
	port := (*[2]byte)(unsafe.Pointer(&a.raw.Port)) // same offset in both layouts
	binary.BigEndian.PutUint16(port[:], ap.Port())
	if ip.Is4() {
		v4 := a.inet4()
		v4.Family = unix.AF_INET
		v4.Addr = ip.As4()
		a.len = unix.SizeofSockaddrInet4
		return
	}
	a.raw.Family = unix.AF_INET6
	a.raw.Addr = ip.As16()
	a.raw.Scope_id = scopeID(ip.Zone())
	a.len = unix.SizeofSockaddrInet6
}

// AddrPort is the address stored; zero for a family that is neither v4 nor v6.
func (a *SockAddr) AddrPort() netip.AddrPort {
	port := binary.BigEndian.Uint16((*[2]byte)(unsafe.Pointer(&a.raw.Port))[:])
	switch a.raw.Family {
	case unix.AF_INET:
		return netip.AddrPortFrom(netip.AddrFrom4(a.inet4().Addr), port)
	case unix.AF_INET6:
		ip := netip.AddrFrom16(a.raw.Addr).Unmap()
		if a.raw.Scope_id != 0 {
			ip = ip.WithZone(strconv.FormatUint(uint64(a.raw.Scope_id), 10))
		}
		return netip.AddrPortFrom(ip, port)
	}
	return netip.AddrPort{}
}

func (a *SockAddr) inet4() *unix.RawSockaddrInet4 {
	return (*unix.RawSockaddrInet4)(unsafe.Pointer(&a.raw))
}

// scopeID turns a zone, the number or the name of an interface, into the
// number the kernel wants; 0 if there is no such interface.
func scopeID(zone string) uint32 {
	if zone == "" {
		return 0
	}
	if n, err := strconv.ParseUint(zone, 10, 32); err == nil {
		return uint32(n)
	}
	if ifi, err := net.InterfaceByName(zone); err == nil {
		return uint32(ifi.Index)
	}
	return 0
}

// Family is AF_INET or AF_INET6 for ip.
func Family(ip netip.Addr) int {
	if ip.Unmap().Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}
