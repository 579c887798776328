package proxyproto

import (
	"encoding/binary"
	"errors"
	"net/netip"
)

var (
	errVersion = errors.New("PROXY v2 header: version is not 2")
	errCommand = errors.New("PROXY v2 header: command is not LOCAL or PROXY")
	errFamily  = errors.New("PROXY v2 header: unknown address family or protocol")
	errLength  = errors.New("PROXY v2 header: length is below that of the addresses")
	errTooLong = errors.New("PROXY v2 header: longer than 4096 bytes")
)

// The layout of a header (specification, 2.2): signature, version and command,
// family and protocol, length of the block that follows.
const (
	atCommand = len(signatureV2)
	atFamily  = atCommand + 1
	atLength  = atFamily + 1
	fixedV2   = atLength + 2
	maxBlock  = 4096

	version2     = 0x2
	commandLocal = version2 << 4
	commandProxy = commandLocal | 1
)

// The bytes for family and protocol.
const (
	unspec    = 0x00
	stream4   = 0x11
	datagram4 = 0x12
	stream6   = 0x21
	datagram6 = 0x22
	streamU   = 0x31
	datagramU = 0x32
)

// The lengths of the addresses.
const (
	length4 = 2*4 + 2*2
	length6 = 2*16 + 2*2
	lengthU = 2 * 108
)

// parseV2 reads a header that begins with the signature.
func (h *Header) parseV2(b []byte) (int, error) {
	if len(b) <= atCommand {
		return 0, ErrShort
	}
	switch command := b[atCommand]; {
	case command>>4 != version2:
		return 0, errVersion
	case command != commandLocal && command != commandProxy:
		return 0, errCommand
	}
	h.Version, h.Local = 2, b[atCommand] == commandLocal
	if len(b) <= atFamily {
		return 0, ErrShort
	}
	family := b[atFamily]
	addresses, ok := addressLength(family)
	if !ok && !h.Local {
		return 0, errFamily
	}
	if len(b) < fixedV2 {
		return 0, ErrShort
	}
	length := int(binary.BigEndian.Uint16(b[atLength:]))
	n := fixedV2 + length
	switch {
	case length > maxBlock:
		return 0, errTooLong
	case length < addresses && !h.Local:
		return 0, errLength
	case len(b) < n:
		return 0, ErrShort
	case h.Local, family == unspec:
		// What the block is made of is not defined.
		h.Local = true
		return n, nil
	}
	h.parseAddresses(family, b[fixedV2:])
	return n, h.parseTLVs(b[:n:n], fixedV2+addresses)
}

// addressLength is how many bytes the addresses take, if the byte is one that
// the specification lists.
func addressLength(family byte) (length int, ok bool) {
	switch family {
	case unspec:
		return 0, true
	case stream4, datagram4:
		return length4, true
	case stream6, datagram6:
		return length6, true
	case streamU, datagramU:
		return lengthU, true
	}
	return 0, false
}

// parseAddresses reads a block that is long enough.
func (h *Header) parseAddresses(family byte, b []byte) {
	switch family {
	case stream4, datagram4:
		h.pair(netip.AddrFrom4([4]byte(b)), netip.AddrFrom4([4]byte(b[4:])),
			binary.BigEndian.Uint16(b[8:]), binary.BigEndian.Uint16(b[10:]))
	case stream6, datagram6:
		h.pair(netip.AddrFrom16([16]byte(b)), netip.AddrFrom16([16]byte(b[16:])),
			binary.BigEndian.Uint16(b[32:]), binary.BigEndian.Uint16(b[34:]))
	default: // AF_UNIX, whose names are of another host
		h.Local = true
	}
	h.Datagram = family == datagram4 || family == datagram6
}

// AppendV2 appends a header of version 2 with the fields of h; Version does not
// matter. If one address is IPv6, both are written so; without two valid
// addresses, and with Local, the header is LOCAL and has nothing else. Left out
// is a UniqueID that is too long, and what would exceed MaxV2.
func AppendV2(dst []byte, h *Header) []byte {
	begin := len(dst)
	dst = append(dst, signatureV2...)
	v4, ok := together(h.Source, h.Destination)
	if h.Local || !ok {
		return append(dst, commandLocal, unspec, 0, 0)
	}
	family := byte(stream6)
	if v4 {
		family = stream4
	}
	if h.Datagram {
		family += datagram4 - stream4
	}
	dst = append(dst, commandProxy, family, 0, 0)
	if v4 {
		source, destination := h.Source.Addr().Unmap().As4(), h.Destination.Addr().Unmap().As4()
		dst = append(append(dst, source[:]...), destination[:]...)
	} else {
		source, destination := h.Source.Addr().As16(), h.Destination.Addr().As16()
		dst = append(append(dst, source[:]...), destination[:]...)
	}
	dst = binary.BigEndian.AppendUint16(dst, h.Source.Port())
	dst = binary.BigEndian.AppendUint16(dst, h.Destination.Port())
	return h.appendTLVs(dst, begin)
}
