package demo

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/netip"
)

// captured is what is looked at of a packet of TCP.
type captured struct {
	id       uint64 // 0: none
	from, to string
	flags    byte
}

const (
	flagFIN = 1 << iota
	flagSYN
	flagRST
)

func (p captured) has(flag byte) bool { return p.flags&flag != 0 }

const (
	blockSection = 0x0a0d0d0a
	blockPacket  = 6 // enhanced
	optionID     = 5 // epb_packetid
	maxCapture   = 64 << 20
)

var errCut = errors.New("the capture is cut off")

// readPackets reads the packets of TCP in a capture that this host has written, see
// draft-ietf-opsawg-pcapng. It is on purpose no code of those who write it.
func readPackets(r io.Reader) ([]captured, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxCapture))
	if err != nil {
		return nil, err
	}
	if len(data) < 12 || binary.NativeEndian.Uint32(data) != blockSection {
		return nil, fmt.Errorf("%d bytes are no capture", len(data))
	}
	var packets []captured
	for len(data) > 0 {
		if len(data) < 12 {
			return nil, errCut
		}
		kind, size := binary.NativeEndian.Uint32(data), int(binary.NativeEndian.Uint32(data[4:]))
		if size < 12 || size > len(data) || size%4 != 0 {
			return nil, errCut
		}
		if body := data[8 : size-4]; kind == blockPacket {
			p, ok, err := readPacket(body)
			if err != nil {
				return nil, err
			}
			if ok {
				packets = append(packets, p)
			}
		}
		data = data[size:]
	}
	return packets, nil
}

// readPacket reads the body of a packet's block; it reports whether it is TCP.
func readPacket(body []byte) (p captured, ok bool, err error) {
	if len(body) < 20 {
		return p, false, errCut
	}
	length := int(binary.NativeEndian.Uint32(body[12:]))
	padded := (length + 3) &^ 3
	if padded < 0 || padded > len(body)-20 {
		return p, false, errCut
	}
	frame, options := body[20:20+length], body[20+padded:]
	for len(options) >= 4 {
		code, n := binary.NativeEndian.Uint16(options), int(binary.NativeEndian.Uint16(options[2:]))
		next := 4 + (n+3)&^3
		if next > len(options) {
			return p, false, errCut
		}
		if code == optionID && n == 8 {
			p.id = binary.NativeEndian.Uint64(options[4:])
		}
		options = options[next:]
	}
	return readTCP(p, frame)
}

// readTCP reads the headers of an Ethernet frame without extensions.
func readTCP(p captured, frame []byte) (captured, bool, error) {
	const ethernet, tcp = 14, 20
	if len(frame) < ethernet+20+tcp {
		return p, false, nil
	}
	ip := frame[ethernet:]
	var from, to netip.Addr
	var header int
	switch {
	case ip[0]>>4 == 4 && ip[9] == 6:
		header = int(ip[0]&15) * 4
		from, _ = netip.AddrFromSlice(ip[12:16])
		to, _ = netip.AddrFromSlice(ip[16:20])
	case ip[0]>>4 == 6 && ip[6] == 6 && len(ip) >= 40+tcp:
		header = 40
		from, _ = netip.AddrFromSlice(ip[8:24])
		to, _ = netip.AddrFromSlice(ip[24:40])
	default:
		return p, false, nil
	}
	if len(ip) < header+tcp {
		return p, false, nil
	}
	segment := ip[header:]
	p.from = netip.AddrPortFrom(from, binary.BigEndian.Uint16(segment)).String()
	p.to = netip.AddrPortFrom(to, binary.BigEndian.Uint16(segment[2:])).String()
	p.flags = segment[13]
	return p, true, nil
}
