package tpacket

import (
	"fmt"
	"math/bits"

	"golang.org/x/sys/unix"
)

// Sizes that the kernel's layout fixes.
const (
	// BlockHeaderLen is the length of tpacket_block_desc.
	BlockHeaderLen = 48
	// FrameHeaderLen is the length of tpacket3_hdr.
	FrameHeaderLen = 48
	// VNetHeaderLen is the length of virtio_net_hdr.
	VNetHeaderLen = 10

	sockaddrLen = 20 // sockaddr_ll
	frameAlign  = 8  // V3_ALIGNMENT
	minMac      = FrameHeaderLen + sockaddrLen
	frameSize   = 2048
)

// Geometry is the size of a receive ring.
type Geometry struct {
	BlockSize int // bytes; a power of two and a multiple of the page size
	Blocks    int
}

// Bytes is the memory of the ring.
func (g Geometry) Bytes() int { return g.BlockSize * g.Blocks }

// Check says what is wrong with a geometry, in the words of the kernel's own
// checks in packet_set_ring. The kernel allocates a block as 2^n pages, so any
// other size would waste memory that nobody sees.
func (g Geometry) Check(pageSize int) error {
	switch {
	case g.BlockSize < pageSize || bits.OnesCount(uint(g.BlockSize)) != 1:
		return fmt.Errorf("check ring: block size %d is not a power of two of at least %d", g.BlockSize, pageSize)
	case g.BlockSize > 1<<30:
		return fmt.Errorf("check ring: block size %d is over 1 GiB", g.BlockSize)
	case g.Blocks < 2:
		// With one block the kernel has nowhere to write while we read.
		return fmt.Errorf("check ring: %d blocks, need 2 or more", g.Blocks)
	case uint64(g.BlockSize)*uint64(g.Blocks) > 1<<36:
		return fmt.Errorf("check ring: %d blocks of %d bytes are over 64 GiB", g.Blocks, g.BlockSize)
	}
	return nil
}

// Halve is the next smaller geometry to try when the kernel has no memory:
// half the blocks, and below eight of them half the block size, because it is
// the large blocks that a fragmented memory cannot give. It returns false when
// there is nothing smaller.
func (g Geometry) Halve(pageSize int) (Geometry, bool) {
	switch {
	case g.Blocks > 8:
		g.Blocks /= 2
	case g.BlockSize > 16*pageSize:
		g.BlockSize /= 2
	case g.Blocks > 2:
		g.Blocks /= 2
	default:
		return g, false
	}
	return g, true
}

// Request is the geometry as setsockopt(PACKET_RX_RING) takes it. retire is
// the block timeout in milliseconds.
func (g Geometry) Request(retire uint32) unix.TpacketReq3 {
	// The frame size means nothing in version 3 but has to divide the block.
	perBlock := g.BlockSize / frameSize
	return unix.TpacketReq3{
		Block_size: uint32(g.BlockSize), Block_nr: uint32(g.Blocks),
		Frame_size: frameSize, Frame_nr: uint32(perBlock * g.Blocks),
		Retire_blk_tov: retire,
	}
}

// Mac is where the kernel puts an Ethernet packet in a frame of a raw socket:
// tpacket_rcv aligns the network header to 16 bytes, adds the reserve and the
// virtio header, and goes back over the link header.
func Mac(reserve int, vnet bool) int {
	const linkHeader = 14 // the kernel takes 16 for the alignment, then its real length
	net := (minMac+16+15)&^15 + reserve
	if vnet {
		net += VNetHeaderLen
	}
	return net - linkHeader
}

// Snap is the longest packet that a block holds whole. The kernel cuts longer
// ones, which shows as [Frame.Len] above len([Frame.Data]).
func (g Geometry) Snap(reserve int, vnet bool) int {
	return g.BlockSize - BlockHeaderLen - Mac(reserve, vnet)
}
