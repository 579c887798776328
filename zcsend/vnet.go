package zcsend

import (
	"encoding/binary"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/tproxyd/tproxyd/internal/packet"
)

// vnetSize is the size of struct virtio_net_hdr.
const vnetSize = 10

// vnetHeader is struct virtio_net_hdr as PACKET_VNET_HDR wants it before a
// frame, in the host's byte order (packet(7), linux/virtio_net.h).
type vnetHeader [vnetSize]byte

// From linux/virtio_net.h.
const (
	vnetNeedsChecksum = 1 // VIRTIO_NET_HDR_F_NEEDS_CSUM
	vnetTCP4          = 1 // VIRTIO_NET_HDR_GSO_TCPV4
	vnetTCP6          = 4 // VIRTIO_NET_HDR_GSO_TCPV6
	vnetUDP           = 5 // VIRTIO_NET_HDR_GSO_UDP_L4
)

// prepare checks a frame against the MTU, computes its checksums if they are
// asked for, and returns the header that a super-frame takes.
func prepare(f *Frame, mtu int) (vnetHeader, error) {
	if f.SegmentSize == 0 {
		if f.Checksum {
			l, _ := packet.Parse(f.Data)
			l.SetChecksums(f.Data)
		}
		return vnetHeader{}, nil
	}
	l, _ := packet.Parse(f.Data)
	if l.Payload == 0 || l.Fragment || l.Truncated {
		return vnetHeader{}, fmt.Errorf("%w: a super-frame has to be a whole TCP or UDP packet", ErrFormat)
	}
	if f.SegmentSize < 0 || f.SegmentSize > 0xffff {
		return vnetHeader{}, fmt.Errorf("%w: segments of %d bytes", ErrFormat, f.SegmentSize)
	}
	// Padding would become a part of the last segment.
	f.Data = f.Data[:l.End]
	if size := l.End - l.L3; size <= mtu && l.End-l.Payload <= f.SegmentSize {
		l.SetChecksums(f.Data)
		return vnetHeader{}, nil
	}
	if size := l.Payload - l.L3 + f.SegmentSize; size > mtu {
		return vnetHeader{}, fmt.Errorf("%w: segments are packets of %d bytes, the MTU is %d", ErrTooLong, size, mtu)
	}
	return superHeader(f.Data, &l, f.SegmentSize), nil
}

// superHeader describes a super-frame and brings its checksums into the form
// in which the kernel takes them for cutting: the IPv4 header's complete, the
// transport's only the sum of the pseudo header (CHECKSUM_PARTIAL, skbuff.h).
func superHeader(frame []byte, l *packet.Layout, segment int) (h vnetHeader) {
	l.SetIPv4Checksum(frame)
	offset, _ := l.ChecksumOffset()
	length := l.End - l.L4
	kind := byte(vnetUDP)
	if l.Protocol == unix.IPPROTO_TCP {
		kind = vnetTCP4
		if l.V6 {
			kind = vnetTCP6
		}
	} else {
		binary.BigEndian.PutUint16(frame[l.L4+4:], uint16(length))
	}
	binary.BigEndian.PutUint16(frame[l.L4+offset:], ^packet.Fold(l.Pseudo(frame, length)))
	h[0], h[1] = vnetNeedsChecksum, kind
	binary.NativeEndian.PutUint16(h[2:], uint16(l.Payload))
	binary.NativeEndian.PutUint16(h[4:], uint16(segment))
	binary.NativeEndian.PutUint16(h[6:], uint16(l.L4))
	binary.NativeEndian.PutUint16(h[8:], uint16(offset))
	return h
}
