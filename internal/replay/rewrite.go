package replay

import (
	"bytes"
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/tproxyd/tproxyd/internal/packet"
)

// MAC is an Ethernet address.
type MAC [6]byte

// IPMap maps the addresses of one prefix to those of another of the same
// length: the bits behind it stay.
type IPMap struct{ From, To netip.Prefix }

// What Rewrite.VLAN may be besides an identifier of 1 to 4094.
const (
	KeepVLAN = 0
	NoVLAN   = -1 // tags are taken away
)

// Rewrite changes frames. The zero value changes nothing.
type Rewrite struct {
	// IPs are looked through in their order, and the first that contains an
	// address maps it: sources and destinations of IP, and ARP's addresses. What
	// an ICMP message quotes stays.
	IPs   []IPMap
	Ports map[uint16]uint16 // of TCP and UDP, both source and destination
	MACs  map[MAC]MAC
	VLAN  int

	// Checksums computes those of every frame, also of one that is not changed:
	// a capture taken where a packet was sent often has none yet.
	Checksums bool
}

// Apply rewrites a frame, in place or with another tag in new memory. The
// checksums of what was changed are right again if they were before.
func (r *Rewrite) Apply(frame []byte) []byte {
	if r.VLAN != KeepVLAN {
		frame = r.retag(frame)
	}
	l, ok := packet.Parse(frame)
	if !ok {
		return frame
	}
	r.macs(frame[0:6])
	r.macs(frame[6:12])
	if l.EtherType == unix.ETH_P_ARP {
		r.arp(frame[l.L3:])
	}
	changed := r.addresses(frame, &l)
	if len(r.Ports) > 0 && l.L4 != 0 && (l.Protocol == unix.IPPROTO_TCP || l.Protocol == unix.IPPROTO_UDP) {
		for _, at := range []int{l.L4, l.L4 + 2} {
			if to, ok := r.Ports[binary.BigEndian.Uint16(frame[at:])]; ok {
				r.replace(frame, &l, frame[at:at+2], binary.BigEndian.AppendUint16(nil, to))
				changed = true
			}
		}
	}
	if r.Checksums || changed {
		l.SetIPv4Checksum(frame)
	}
	if r.Checksums {
		l.SetChecksums(frame)
	}
	return frame
}

func (r *Rewrite) macs(b []byte) {
	if to, ok := r.MACs[MAC(b)]; ok {
		copy(b, to[:])
	}
}

func (r *Rewrite) addresses(frame []byte, l *packet.Layout) (changed bool) {
	src, dst := l.Addresses(frame)
	for _, b := range [][]byte{src, dst} {
		if to, ok := r.lookup(b); ok {
			r.replace(frame, l, b, to)
			changed = true
		}
	}
	return changed
}

// replace writes over a part of a frame that the transport's checksum covers,
// and adjusts that. An adjusted checksum is as right or wrong as it was: this
// also holds for fragments and packets cut short, whose sum cannot be computed.
func (r *Rewrite) replace(frame []byte, l *packet.Layout, b, to []byte) {
	offset, ok := l.ChecksumOffset()
	covered := ok && (l.Protocol != unix.IPPROTO_ICMP)
	if at := l.L4 + offset; covered && at+2 <= len(frame) {
		c := binary.BigEndian.Uint16(frame[at:])
		none := c == 0 && l.Protocol == unix.IPPROTO_UDP
		if !none {
			c = packet.Adjust(c, b, to)
			if c == 0 && l.Protocol == unix.IPPROTO_UDP {
				c = 0xffff // 0 would say that there is none
			}
			binary.BigEndian.PutUint16(frame[at:], c)
		}
	}
	copy(b, to)
}

// lookup maps an address as it stands in a packet.
func (r *Rewrite) lookup(b []byte) ([]byte, bool) {
	ip, ok := netip.AddrFromSlice(b)
	if !ok {
		return nil, false
	}
	for _, m := range r.IPs {
		if m.From.Contains(ip) {
			return m.apply(b), true
		}
	}
	return nil, false
}

func (m *IPMap) apply(b []byte) []byte {
	to := bytes.Clone(b)
	net := m.To.Addr().AsSlice()
	for i := range m.From.Bits() {
		bit := byte(0x80) >> (i % 8)
		to[i/8] = to[i/8]&^bit | net[i/8]&bit
	}
	return to
}

// arp maps the addresses of an ARP packet for IPv4 over Ethernet (RFC 826).
func (r *Rewrite) arp(b []byte) {
	if len(b) < 28 || !bytes.Equal(b[:6], []byte{0, 1, 8, 0, 6, 4}) {
		return
	}
	for _, at := range []int{8, 18} {
		r.macs(b[at : at+6])
		if to, ok := r.lookup(b[at+6 : at+10]); ok {
			copy(b[at+6:], to)
		}
	}
}

// retag gives a frame one tag, or none.
func (r *Rewrite) retag(frame []byte) []byte {
	l, ok := packet.Parse(frame)
	if !ok {
		return frame
	}
	out := make([]byte, 0, len(frame)+packet.VLANTag)
	out = append(out, frame[:12]...)
	if r.VLAN != NoVLAN {
		out = binary.BigEndian.AppendUint16(out, unix.ETH_P_8021Q)
		out = binary.BigEndian.AppendUint16(out, uint16(r.VLAN))
	}
	return append(out, frame[l.L3-2:]...)
}
