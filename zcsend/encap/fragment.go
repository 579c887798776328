package encap

import (
	"fmt"

	"golang.org/x/sys/unix"
)

const (
	fragmentHeader = 8 // of IPv6
	moreFragments  = 0x2000
)

// fragments cuts the packet whose headers are buf[start:] and whose rest is
// frame. All fragments but the last carry a multiple of 8 bytes.
func (e *Encoder) fragments(out []Packet, buf []byte, start int, frame []byte, mtu int) ([]Packet, []byte, error) {
	head := e.size
	if !e.cfg.Source.Is4() {
		head += fragmentHeader
	}
	room := (mtu - head) &^ 7
	if room <= e.inner {
		return out, buf[:start], fmt.Errorf("%w: the path's MTU is %d", ErrTooLong, mtu)
	}
	e.ident++
	// The headers between IP and frame are the beginning of the first fragment.
	between := append([]byte(nil), buf[start+e.size:]...)
	buf = buf[:start]
	for offset := 0; len(frame) > 0 || offset == 0; {
		at := len(buf)
		buf = append(buf, e.ip[:e.size]...)
		take := min(room-len(between), len(frame))
		more := take < len(frame)
		buf = e.fragmentHead(buf, at, offset, len(between)+take, more)
		buf = append(buf, between...)
		out = append(out, Packet{Head: buf[at:len(buf):len(buf)], Body: frame[:take]})
		offset += len(between) + take
		frame, between = frame[take:], nil
	}
	return out, buf, nil
}

// fragmentHead completes the IP header at buf[at:] for a fragment.
func (e *Encoder) fragmentHead(buf []byte, at, offset, length int, more bool) []byte {
	if e.cfg.Source.Is4() {
		word := uint16(offset >> 3)
		if more {
			word |= moreFragments
		}
		e.finish(buf[at:], length, uint16(e.ident), word)
		return buf
	}
	word := uint16(offset)
	if more {
		word |= 1
	}
	buf[at+6] = unix.IPPROTO_FRAGMENT
	buf = append(buf, e.protocol, 0)
	buf = be.AppendUint16(buf, word)
	buf = be.AppendUint32(buf, e.ident)
	e.finish(buf[at:], fragmentHeader+length, 0, 0)
	return buf
}
