package tpacket

import (
	"time"

	"golang.org/x/sys/unix"
)

// Offsets in tpacket3_hdr and the sockaddr_ll behind it.
const (
	frNext    = 0
	frSec     = 4
	frSnaplen = 12
	frLen     = 16
	frStatus  = 20
	frMac     = 24
	frNet     = 26
	frHash    = 28
	frTCI     = 32
	frTPID    = 36
	frIfindex = FrameHeaderLen + 4
	frPkttype = FrameHeaderLen + 10
)

// Frame is one packet in a block, lent until the block is released.
type Frame struct {
	raw  []byte // from the header to the end of the packet
	at   uint32 // where the header is in the block
	mac  uint16 // where the packet starts in raw
	vnet bool
}

// Data is the packet from its link header on, without the VLAN tag that
// [Frame.VLAN] tells.
func (f Frame) Data() []byte { return f.raw[f.mac:] }

// Raw is everything from the frame's header to the packet's end, and where the
// packet starts in it. It may be written to, once nothing of the header is
// needed any more.
func (f Frame) Raw() (frame []byte, mac int) { return f.raw, int(f.mac) }

// Offset is where the frame's header is in [Block.Bytes].
func (f Frame) Offset() int { return int(f.at) }

// Len is the packet's length before it was cut to a snap length.
func (f Frame) Len() int { return int(ne.Uint32(f.raw[frLen:])) }

// Status is tp_status.
func (f Frame) Status() uint32 { return ne.Uint32(f.raw[frStatus:]) }

// Nanos is the packet's time in nanoseconds since 1970.
func (f Frame) Nanos() int64 { return nanos(f.raw[frSec : frSec+8]) }

// Plain says whether neither [Frame.VLAN] nor the GSO of [Frame.VNet] has
// anything to tell.
func (f Frame) Plain() bool {
	const gsoSize = 4
	return f.Status()&unix.TP_STATUS_VLAN_VALID == 0 &&
		(!f.vnet || ne.Uint16(f.raw[int(f.mac)-VNetHeaderLen+gsoSize:]) == 0)
}

// Time is [Frame.Nanos] as a time.
func (f Frame) Time() time.Time { return time.Unix(0, f.Nanos()) }

// Hash is the kernel's hash of the flow, 0 if there is none.
func (f Frame) Hash() uint32 { return ne.Uint32(f.raw[frHash:]) }

// Type is how the packet relates to this host: unix.PACKET_HOST,
// PACKET_BROADCAST, PACKET_MULTICAST, PACKET_OTHERHOST or PACKET_OUTGOING.
func (f Frame) Type() uint8 { return f.raw[frPkttype] }

// Outgoing says whether this host sent the packet.
func (f Frame) Outgoing() bool { return f.Type() == unix.PACKET_OUTGOING }

// Ifindex is the interface that the packet came in by.
func (f Frame) Ifindex() int { return int(int32(ne.Uint32(f.raw[frIfindex:]))) }

// VLAN is the tag that the kernel, or the card, took out of the packet.
func (f Frame) VLAN() (tag VLAN, ok bool) {
	status := f.Status()
	if status&unix.TP_STATUS_VLAN_VALID == 0 {
		return VLAN{}, false
	}
	tag = VLAN{TPID: unix.ETH_P_8021Q, TCI: uint16(ne.Uint32(f.raw[frTCI:]))}
	if status&unix.TP_STATUS_VLAN_TPID_VALID != 0 {
		tag.TPID = ne.Uint16(f.raw[frTPID:])
	}
	return tag, true
}

// VLAN is a tag of IEEE 802.1Q.
type VLAN struct{ TPID, TCI uint16 }

// GSO kinds of a virtio header, include/uapi/linux/virtio_net.h.
const (
	GSONone  = 0
	GSOTCPv4 = 1
	GSOUDP   = 3 // fragmentation offload
	GSOTCPv6 = 4
	GSOUDPL4 = 5
	GSOECN   = 0x80 // TCP with CWR on the first segment only
)

// Flags of a virtio header.
const (
	NeedsCsum = 1 // the checksum is not computed yet, only the pseudo header's
	DataValid = 2
)

// VNet is what the kernel would tell a virtual machine about a packet.
type VNet struct {
	Flags, GSOType       uint8
	HeaderLen, GSOSize   uint16
	CsumStart, CsumAtOff uint16
}

// Kind is the GSO kind without its modifiers.
func (v VNet) Kind() uint8 { return v.GSOType &^ GSOECN }

// VNet is the packet's virtio header; false without PACKET_VNET_HDR.
func (f Frame) VNet() (VNet, bool) {
	if !f.vnet {
		return VNet{}, false
	}
	h := f.raw[int(f.mac)-VNetHeaderLen : f.mac]
	return VNet{
		Flags: h[0], GSOType: h[1], HeaderLen: ne.Uint16(h[2:]), GSOSize: ne.Uint16(h[4:]),
		CsumStart: ne.Uint16(h[6:]), CsumAtOff: ne.Uint16(h[8:]),
	}, true
}
