package ringcap

import (
	"encoding/binary"
	"net/netip"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/tproxyd/tproxyd/internal/packet"
	"github.com/tproxyd/tproxyd/ringcap/pcapng"
)

// FlowKey is a flow of one leg. Which side is A and which is B does not matter.
type FlowKey struct {
	Protocol uint8 // unix.IPPROTO_TCP or IPPROTO_UDP
	A, B     netip.AddrPort
}

// FlowSet says which flows are captured, and how much of each. The packets of a
// flow, both directions, get its Tag; a proxied flow is entered once for each
// leg, with the same ID and the leg's interface number.
//
// Fragments other than the first have no ports and belong to no flow; nor has a
// packet with extension headers of IPv6.
type FlowSet struct {
	mu    sync.RWMutex
	flows map[packet.Ends]pcapng.Tag
}

func (k FlowKey) ends() packet.Ends {
	a, b := k.A.Addr().As16(), k.B.Addr().As16()
	e, _ := packet.NewEnds(k.Protocol, &a, &b, k.A.Port(), k.B.Port())
	return e
}

// Set enters or changes a flow. A Snap of 0 captures all of it.
func (s *FlowSet) Set(k FlowKey, tag pcapng.Tag) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.flows == nil {
		s.flows = make(map[packet.Ends]pcapng.Tag)
	}
	s.flows[k.ends()] = tag
}

// Delete takes a flow out.
func (s *FlowSet) Delete(k FlowKey) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.flows, k.ends())
}

// Len is how many flows there are.
func (s *FlowSet) Len() int {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return len(s.flows)
}

// Pick is what a [pcapng.Encoder] asks.
func (s *FlowSet) Pick(p Packet) (pcapng.Tag, bool) {
	k, ok := endsOf(p.Data())
	if !ok {
		return pcapng.Tag{}, false
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	tag, ok := s.flows[k]
	return tag, ok
}

// maxTags is how many VLAN tags a flow may be behind.
const maxTags = 2

// endsOf finds the flow of a packet.
func endsOf(b []byte) (packet.Ends, bool) {
	be := binary.BigEndian
	for at := 12; len(b) >= at+2 && at <= 12+4*maxTags; at += 4 {
		switch ip := b[at+2:]; be.Uint16(b[at:]) {
		case unix.ETH_P_8021Q, unix.ETH_P_8021AD:
			continue
		case unix.ETH_P_IP:
			header := 0
			if len(ip) >= 20 {
				header = int(ip[0]&15) * 4
			}
			if header < 20 || len(ip) < header+4 || be.Uint16(ip[6:])&0x1fff != 0 {
				return packet.Ends{}, false
			}
			a, c := netip.AddrFrom4([4]byte(ip[12:])).As16(), netip.AddrFrom4([4]byte(ip[16:])).As16()
			e, _ := packet.NewEnds(ip[9], &a, &c, be.Uint16(ip[header:]), be.Uint16(ip[header+2:]))
			return e, true
		case unix.ETH_P_IPV6:
			if len(ip) < 44 {
				return packet.Ends{}, false
			}
			e, _ := packet.NewEnds(ip[6], (*[16]byte)(ip[8:]), (*[16]byte)(ip[24:]), be.Uint16(ip[40:]), be.Uint16(ip[42:]))
			return e, true
		default:
			return packet.Ends{}, false
		}
	}
	return packet.Ends{}, false
}
