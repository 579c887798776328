package tpackettest

import (
	"encoding/binary"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/tproxyd/tproxyd/internal/tpacket"
)

var ne = binary.NativeEndian

// Packet is what one frame of a block shall hold.
type Packet struct {
	Data  []byte
	Len   int   // before it was cut; 0 is len(Data)
	Nanos int64 // since 1970
	Type  uint8 // unix.PACKET_HOST ...
	VLAN  *tpacket.VLAN
	VNet  *tpacket.VNet // written if the ring has virtio headers
	Stale bool          // the kernel gave up on it: no TP_STATUS_USER
}

// Ring says how the ring was made.
type Ring struct {
	Reserve int
	VNet    bool
}

// Fill writes packets into a block that the kernel owns, leaves what was in
// the gaps, and returns how many fitted.
func (r Ring) Fill(block []byte, seq uint64, packets ...Packet) int {
	mac := tpacket.Mac(r.Reserve, r.VNet)
	at, last, n := tpacket.BlockHeaderLen, -1, 0
	for _, p := range packets {
		size := (mac + len(p.Data) + 7) &^ 7
		if at+size > len(block) {
			break
		}
		r.frame(block[at:at+size], mac, p)
		last = at
		at += size
		n++
	}
	if last >= 0 {
		ne.PutUint32(block[last:], 0) // prb_close_block
	}
	ne.PutUint32(block, unix.TPACKET_V3)
	ne.PutUint32(block[4:], tpacket.BlockHeaderLen)
	ne.PutUint32(block[12:], uint32(n))
	ne.PutUint32(block[16:], tpacket.BlockHeaderLen)
	ne.PutUint32(block[20:], uint32(at))
	ne.PutUint64(block[24:], seq)
	if n > 0 {
		putNanos(block[32:], packets[0].Nanos)
		putNanos(block[40:], packets[n-1].Nanos)
	}
	return n
}

// Close hands a filled block over to user space.
func Close(block []byte) { Status(block).Store(unix.TP_STATUS_USER) }

// Free says whether the kernel owns a block.
func Free(block []byte) bool { return Status(block).Load()&unix.TP_STATUS_USER == 0 }

// Block makes a block of the given size with packets, handed over.
func (r Ring) Block(size int, packets ...Packet) []byte {
	block := Aligned(size)
	r.Fill(block, 1, packets...)
	Close(block)
	return block
}

func (r Ring) frame(frame []byte, mac int, p Packet) {
	status := uint32(unix.TP_STATUS_USER)
	if p.Stale {
		status = unix.TP_STATUS_KERNEL
	}
	ne.PutUint32(frame, uint32(len(frame)))
	putNanos(frame[4:], p.Nanos)
	ne.PutUint32(frame[12:], uint32(len(p.Data)))
	ne.PutUint32(frame[16:], uint32(max(p.Len, len(p.Data))))
	ne.PutUint16(frame[24:], uint16(mac))
	ne.PutUint16(frame[26:], uint16(mac+14))
	if p.VLAN != nil {
		status |= unix.TP_STATUS_VLAN_VALID | unix.TP_STATUS_VLAN_TPID_VALID
		ne.PutUint32(frame[32:], uint32(p.VLAN.TCI))
		ne.PutUint16(frame[36:], p.VLAN.TPID)
	}
	ne.PutUint32(frame[20:], status)
	frame[58] = p.Type
	if r.VNet {
		v := p.VNet
		if v == nil {
			v = &tpacket.VNet{}
		}
		putVNet(frame[mac-tpacket.VNetHeaderLen:], *v)
	}
	copy(frame[mac:], p.Data)
}

func putVNet(b []byte, v tpacket.VNet) {
	b[0], b[1] = v.Flags, v.GSOType
	for i, field := range []uint16{v.HeaderLen, v.GSOSize, v.CsumStart, v.CsumAtOff} {
		ne.PutUint16(b[2+2*i:], field)
	}
}

func putNanos(b []byte, ns int64) {
	ne.PutUint32(b, uint32(ns/1e9))
	ne.PutUint32(b[4:], uint32(ns%1e9))
}

// Clone copies a block to aligned memory of its own.
func Clone(block []byte) []byte {
	c := Aligned(len(block))
	copy(c, block)
	return slices.Clip(c)
}
