package proxyproto

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"unicode/utf8"
)

var (
	errTLVLength   = errors.New("PROXY v2 header: TLVs do not fill it exactly")
	errUniqueID    = errors.New("PROXY v2 header: unique id is longer than 128 bytes")
	errCRCLength   = errors.New("PROXY v2 header: CRC32c is not one of 4 bytes")
	errCRCMismatch = errors.New("PROXY v2 header: CRC32c is wrong")
)

// The types of TLVs that are looked at (PP2_TYPE_..., specification, 2.2).
const (
	tlvALPN      = 0x01
	tlvAuthority = 0x02
	tlvCRC32C    = 0x03
	tlvUniqueID  = 0x05

	tlvHeader = 3 // type and length
	crcLength = 4
)

var (
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
	zeroes     [crcLength]byte // in place of a checksum; on the stack it would escape
)

// parseTLVs reads the TLVs of a complete header, which begin at i.
func (h *Header) parseTLVs(b []byte, i int) error {
	crc := 0 // where the checksum is
	for i < len(b) {
		if len(b)-i < tlvHeader {
			return errTLVLength
		}
		kind, length := b[i], int(binary.BigEndian.Uint16(b[i+1:]))
		i += tlvHeader
		if len(b)-i < length {
			return errTLVLength
		}
		value := b[i : i+length : i+length]
		switch kind {
		case tlvALPN:
			keep(&h.ALPN, value)
		case tlvAuthority:
			if utf8.Valid(value) {
				keep(&h.Authority, value)
			}
		case tlvUniqueID:
			if length > MaxUniqueID {
				return errUniqueID
			}
			keep(&h.UniqueID, value)
		case tlvCRC32C:
			if length != crcLength || crc > 0 {
				return errCRCLength
			}
			crc = i
		}
		i += length
	}
	if crc > 0 && binary.BigEndian.Uint32(b[crc:]) != checksum(b, crc) {
		return errCRCMismatch
	}
	h.Checksum = crc > 0
	return nil
}

// keep sets a field to the first of several values.
func keep(field *[]byte, value []byte) {
	if *field == nil {
		*field = value
	}
}

// checksum is the CRC32c of a header, as if that at i were zero.
func checksum(b []byte, i int) uint32 {
	sum := crc32.Update(0, castagnoli, b[:i])
	sum = crc32.Update(sum, castagnoli, zeroes[:])
	return crc32.Update(sum, castagnoli, b[i+crcLength:])
}

// appendTLVs appends the TLVs of h to a header that begins at begin, and sets
// its length.
func (h *Header) appendTLVs(dst []byte, begin int) []byte {
	limit := begin + MaxV2
	if h.Checksum {
		limit -= tlvHeader + crcLength
	}
	dst = appendTLV(dst, tlvALPN, h.ALPN, limit)
	dst = appendTLV(dst, tlvAuthority, h.Authority, limit)
	if len(h.UniqueID) <= MaxUniqueID {
		dst = appendTLV(dst, tlvUniqueID, h.UniqueID, limit)
	}
	crc := len(dst) + tlvHeader
	if h.Checksum {
		dst = append(dst, tlvCRC32C, 0, crcLength, 0, 0, 0, 0)
	}
	header := dst[begin:]
	binary.BigEndian.PutUint16(header[atLength:], uint16(len(header)-fixedV2))
	if h.Checksum {
		binary.BigEndian.PutUint32(dst[crc:], checksum(header, crc-begin))
	}
	return dst
}

// appendTLV appends a TLV, if there is a value and it ends within limit.
func appendTLV(dst []byte, kind byte, value []byte, limit int) []byte {
	if value == nil || len(dst)+tlvHeader+len(value) > limit {
		return dst
	}
	dst = append(dst, kind)
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(value)))
	return append(dst, value...)
}
