package mirror

import (
	"encoding/binary"

	"golang.org/x/sys/unix"

	"github.com/tproxyd/tproxyd/internal/packet"
	"github.com/tproxyd/tproxyd/internal/tpacket"
	"github.com/tproxyd/tproxyd/ringcap"
)

var be = binary.BigEndian

// whole is a packet as the wire has it, but for being cut: with its VLAN tag and
// its checksum. The ring's memory is written to. segment is that of a
// super-frame, otherwise 0; ok is false if the kernel described it in a way that
// does not go with what it is.
func whole(p ringcap.Packet) (data []byte, segment int, ok bool) {
	data = p.Data()
	if len(data) < packet.EthernetHeader {
		return data, 0, false
	}
	v, _ := p.VNet()
	if v.GSOSize != 0 {
		if segment = int(v.GSOSize); !cuttable(data, v.Kind()) {
			return data, 0, false
		}
	} else if v.Flags&tpacket.NeedsCsum != 0 && len(data) == p.Len() {
		if !checksum(data, int(v.CsumStart), int(v.CsumAtOff)) {
			return data, 0, false
		}
	}
	tag, tagged := p.VLAN()
	if !tagged {
		return data, segment, true
	}
	// The frame's header has been read: the addresses move over it.
	raw, mac := p.Raw()
	if mac < packet.VLANTag {
		return data, 0, false
	}
	data = raw[mac-packet.VLANTag:]
	copy(data[:12], data[packet.VLANTag:])
	be.PutUint16(data[12:], tag.TPID)
	be.PutUint16(data[14:], tag.TCI)
	return data, segment, true
}

// cuttable says whether a super-frame is what its kind says, right behind one IP
// header. The kernel describes tunnels by what is in them.
func cuttable(data []byte, kind uint8) bool {
	be16 := be.Uint16(data[12:])
	at := packet.EthernetHeader
	for range 2 {
		if packet.IsVLAN(be16) && len(data) >= at+packet.VLANTag {
			be16, at = be.Uint16(data[at+2:]), at+packet.VLANTag
		}
	}
	switch ip := data[at:]; {
	case be16 == unix.ETH_P_IP && len(ip) >= packet.IPv4Header:
		return kind == tpacket.GSOTCPv4 && ip[9] == unix.IPPROTO_TCP || kind == tpacket.GSOUDPL4 && ip[9] == unix.IPPROTO_UDP
	case be16 == unix.ETH_P_IPV6 && len(ip) >= packet.IPv6Header:
		return kind == tpacket.GSOTCPv6 && ip[6] == unix.IPPROTO_TCP || kind == tpacket.GSOUDPL4 && ip[6] == unix.IPPROTO_UDP
	}
	return false
}

// checksum computes what a card would have: over everything from start on, where
// the sum of the pseudo header stands in the field (CHECKSUM_PARTIAL).
func checksum(data []byte, start, offset int) bool {
	if start+offset+2 > len(data) {
		return false
	}
	sum := packet.Fold(packet.Sum(0, data[start:]))
	if sum == 0 {
		sum = 0xffff // the same to TCP, and to UDP 0 is none
	}
	be.PutUint16(data[start+offset:], sum)
	return true
}
