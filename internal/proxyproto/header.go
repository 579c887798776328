package proxyproto

import (
	"errors"
	"net/netip"
)

var (
	// ErrShort says that what is there may begin a header, and more must come.
	ErrShort = errors.New("incomplete PROXY header")
	// ErrNoHeader says that a stream does not begin with a PROXY header.
	ErrNoHeader = errors.New("no PROXY header")
)

const (
	// MaxV1 is the length of the longest line of version 1.
	MaxV1 = 107
	// MaxV2 is the length of the longest header of version 2 that is read.
	MaxV2 = fixedV2 + maxBlock
	// MaxHeader is the length of the longest header of any version.
	MaxHeader = max(MaxV1, MaxV2)
	// MaxUniqueID is the length of the longest UniqueID.
	MaxUniqueID = 128
)

// Header is what a proxy says about a connection.
type Header struct {
	Version int // 1 or 2

	// Local says that the header tells no addresses: those of the connection
	// itself count. It is so for UNKNOWN of version 1, and for LOCAL, UNSPEC
	// and AF_UNIX of version 2.
	Local bool
	// Datagram says that the proxied protocol is UDP.
	Datagram bool
	// Source and Destination are the client and what it spoke to. They are
	// never IPv4 in IPv6.
	Source, Destination netip.AddrPort

	// ALPN, Authority and UniqueID are the TLVs of these names, and nil if
	// there are none. They are part of the bytes that were parsed. Authority is
	// UTF-8, and nothing else is known of it.
	ALPN, Authority, UniqueID []byte
	// Checksum says that there is a CRC32c, and that it is right.
	Checksum bool
}

// Parse reads the header at the beginning of b and says how long it is. While
// it is incomplete, the error is ErrShort; all other errors are final.
func Parse(b []byte) (h Header, n int, err error) {
	var s Signature
	switch s.Scan(b) {
	case Absent:
		return Header{}, 0, ErrNoHeader
	case Possible:
		return Header{}, 0, ErrShort
	case Present:
	}
	if b[0] == signatureV1[0] {
		n, err = h.parseV1(b)
	} else {
		n, err = h.parseV2(b)
	}
	if err != nil {
		return Header{}, 0, err
	}
	return h, n, nil
}

// pair sets the addresses.
func (h *Header) pair(source, destination netip.Addr, sourcePort, destinationPort uint16) {
	h.Source = netip.AddrPortFrom(source.Unmap(), sourcePort)
	h.Destination = netip.AddrPortFrom(destination.Unmap(), destinationPort)
}

// together says how two addresses can be told in one header: whether both are
// IPv4, and whether they are addresses at all.
func together(source, destination netip.AddrPort) (v4, ok bool) {
	v4 = source.Addr().Unmap().Is4() && destination.Addr().Unmap().Is4()
	return v4, source.IsValid() && destination.IsValid()
}
