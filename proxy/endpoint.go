package proxy

import (
	"net/netip"
	"strconv"

	"github.com/tproxyd/tproxyd/internal/sys"
	"golang.org/x/sys/unix"
)

// endpoint is a netip.AddrPort in 24 bytes instead of 32: there are three in
// each flow, and a proxy is full of idle flows. It has no padding, so that
// comparing and hashing take it in one go.
type endpoint struct {
	ip     [16]byte
	zone   uint32 // number of the interface; 0: none
	port   uint16
	family uint16 // AF_INET or AF_INET6; 0 of the zero endpoint
}

func newEndpoint(a netip.AddrPort) endpoint {
	e := endpoint{ip: a.Addr().As16(), port: a.Port(), family: uint16(sys.Family(a.Addr()))}
	if zone := a.Addr().Zone(); zone != "" {
		n, _ := strconv.ParseUint(zone, 10, 32) // sys.SockAddr gives numbers
		e.zone = uint32(n)
	}
	return e
}

// endpointOf is newEndpoint of an address in the kernel's layout.
func endpointOf(a *sys.SockAddr) endpoint {
	ip, zone, port, v4 := a.Parts()
	e := endpoint{ip: ip, zone: zone, port: port, family: unix.AF_INET6}
	if v4 {
		e.family = unix.AF_INET
	}
	return e
}

func (e endpoint) v4() bool { return e.family == unix.AF_INET }

// addrPort is the reverse of newEndpoint; zero for the zero endpoint.
func (e endpoint) addrPort() netip.AddrPort {
	if e == (endpoint{}) {
		return netip.AddrPort{}
	}
	ip := netip.AddrFrom16(e.ip)
	if e.v4() {
		ip = ip.Unmap()
	}
	if e.zone != 0 {
		ip = ip.WithZone(strconv.FormatUint(uint64(e.zone), 10))
	}
	return netip.AddrPortFrom(ip, e.port)
}
