package encap

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/tproxyd/tproxyd/internal/packet"
)

var be = binary.BigEndian

// Kind is a way of encapsulation.
type Kind string

// Kinds.
const (
	VXLAN  Kind = "vxlan"
	GRE    Kind = "gre"
	ERSPAN Kind = "erspan"
)

// Port is where VXLAN goes, RFC 7348, section 8.
const Port = 4789

// The largest identifiers.
const (
	MaxVNI     = 1<<24 - 1
	MaxSession = 1<<10 - 1
	MaxIndex   = 1<<20 - 1
)

const (
	hops        = 64
	vxlanHeader = 8
	// greHeader is with a key or a sequence number, one of which there always is.
	greHeader    = 8
	erspanHeader = 8

	// maxOuter bounds an outer IP packet, before it is cut into fragments.
	maxOuter = 0xffff
)

// Protocols in GRE.
const (
	bridging = 0x6558
	erspanII = 0x88be
)

// ErrTooLong is a frame that no outer packet has room for, in fragments or not.
var ErrTooLong = errors.New("frame is too long to be encapsulated")

// Config of an Encoder.
type Config struct {
	Kind        Kind
	Source      netip.Addr // of the outer packets
	Destination netip.Addr // the collector, of the same family

	Port  uint16 // of VXLAN; 0 is 4789
	ID    uint32 // VNI of VXLAN, key of GRE, session of ERSPAN
	Index uint32 // ERSPAN: names the port that was mirrored
}

// Encoder encapsulates. It belongs to one goroutine.
type Encoder struct {
	cfg      Config
	protocol byte
	ip       [packet.IPv6Header]byte // all that is the same in every packet
	size     int                     // of ip
	sum      uint64                  // of its pseudo header, without the length
	inner    int                     // bytes between the IP header and the frame
	sequence uint32                  // of ERSPAN
	ident    uint32                  // of fragments
}

// New makes an Encoder.
func New(cfg Config) (*Encoder, error) {
	if err := cfg.check(); err != nil {
		return nil, fmt.Errorf("encapsulate in %s: %w", cfg.Kind, err)
	}
	if cfg.Port == 0 {
		cfg.Port = Port
	}
	e := &Encoder{cfg: cfg, protocol: unix.IPPROTO_GRE, inner: greHeader}
	switch cfg.Kind {
	case VXLAN:
		e.protocol, e.inner = unix.IPPROTO_UDP, packet.UDPHeader+vxlanHeader
	case ERSPAN:
		e.inner += erspanHeader
	case GRE:
	}
	e.template()
	return e, nil
}

func (c *Config) check() error {
	limit := uint32(0xffffffff)
	switch c.Kind {
	case VXLAN:
		limit = MaxVNI
	case ERSPAN:
		limit = MaxSession
	case GRE:
	default:
		return errors.New("kind is unknown")
	}
	switch {
	case !c.Source.IsValid() || !c.Destination.IsValid():
		return errors.New("an address is missing")
	case c.Source.Is4() != c.Destination.Is4() || c.Source.Is4In6() || c.Destination.Is4In6():
		return fmt.Errorf("%s and %s are not of one family", c.Source, c.Destination)
	case c.ID > limit:
		return fmt.Errorf("identifier %d is above %d", c.ID, limit)
	case c.Index > MaxIndex:
		return fmt.Errorf("index %d is above %d", c.Index, MaxIndex)
	}
	return nil
}

// template fills in what all IP headers have in common.
func (e *Encoder) template() {
	src, dst := e.cfg.Source.AsSlice(), e.cfg.Destination.AsSlice()
	if e.cfg.Source.Is4() {
		e.size = packet.IPv4Header
		e.ip[0], e.ip[8], e.ip[9] = 0x45, hops, e.protocol
		copy(e.ip[12:], src)
		copy(e.ip[16:], dst)
	} else {
		e.size = packet.IPv6Header
		e.ip[0], e.ip[6], e.ip[7] = 0x60, e.protocol, hops
		copy(e.ip[8:], src)
		copy(e.ip[24:], dst)
	}
	e.sum = packet.Sum(packet.Sum(uint64(e.protocol), src), dst)
}

// Overhead is how many bytes of an outer packet come before the frame.
func (e *Encoder) Overhead() int { return e.size + e.inner }

// Packet is one outer IP packet, or fragment of one: Head and then Body, which
// is a part of the frame.
type Packet struct{ Head, Body []byte }

// Encode appends to out the packets for a frame and to buf their headers, in
// which the packets' heads lie. mtu is what the path takes, and cut says whether
// the frame was longer.
func (e *Encoder) Encode(out []Packet, buf, frame []byte, cut bool, mtu int) ([]Packet, []byte, error) {
	length := e.inner + len(frame)
	if e.size+length > maxOuter {
		return out, buf, fmt.Errorf("%w: %d bytes", ErrTooLong, len(frame))
	}
	start := len(buf)
	buf = append(buf, e.ip[:e.size]...)
	switch e.cfg.Kind {
	case VXLAN:
		buf = e.vxlan(buf, frame)
	case ERSPAN:
		buf = e.erspan(buf, frame, cut)
	case GRE:
		buf = be.AppendUint16(buf, 0x2000) // a key
		buf = be.AppendUint16(buf, bridging)
		buf = be.AppendUint32(buf, e.cfg.ID)
	}
	if e.size+length > mtu {
		return e.fragments(out, buf, start, frame, mtu)
	}
	e.finish(buf[start:], length, 0, 0)
	return append(out, Packet{Head: buf[start:], Body: frame}), buf, nil
}

func (e *Encoder) vxlan(buf, frame []byte) []byte {
	at := len(buf)
	length := e.inner + len(frame)
	buf = be.AppendUint16(buf, flowPort(frame))
	buf = be.AppendUint16(buf, e.cfg.Port)
	buf = be.AppendUint16(buf, uint16(length))
	buf = append(buf, 0, 0, 8, 0, 0, 0) // no checksum; the identifier is valid
	buf = be.AppendUint32(buf, e.cfg.ID<<8)
	if !e.cfg.Source.Is4() {
		check := packet.Fold(packet.Sum(packet.Sum(e.sum+uint64(length), buf[at:]), frame))
		if check == 0 {
			check = 0xffff // 0 would be none: RFC 768
		}
		be.PutUint16(buf[at+6:], check)
	}
	return buf
}

// erspan appends a GRE header with a sequence number, RFC 2890, and that of
// ERSPAN type II, whose version is 1.
func (e *Encoder) erspan(buf, frame []byte, cut bool) []byte {
	buf = be.AppendUint16(buf, 0x1000)
	buf = be.AppendUint16(buf, erspanII)
	buf = be.AppendUint32(buf, e.sequence)
	e.sequence++
	head := uint32(1)<<28 | e.cfg.ID
	if len(frame) >= packet.EthernetHeader+packet.VLANTag && be.Uint16(frame[12:]) == unix.ETH_P_8021Q {
		tci := uint32(be.Uint16(frame[14:]))
		// Its VLAN and class of service; the tag is also in the frame.
		head |= (tci&0xfff)<<16 | tci>>13<<13 | 3<<11
	}
	if cut {
		head |= 1 << 10
	}
	buf = be.AppendUint32(buf, head)
	return be.AppendUint32(buf, e.cfg.Index)
}

// finish completes an IP header for length bytes behind it. ident and fragment
// are those of the IPv4 header.
func (e *Encoder) finish(head []byte, length int, ident, fragment uint16) {
	if e.cfg.Source.Is4() {
		be.PutUint16(head[2:], uint16(e.size+length))
		be.PutUint16(head[4:], ident)
		be.PutUint16(head[6:], fragment)
		be.PutUint16(head[10:], packet.Fold(packet.Sum(0, head[:e.size])))
		return
	}
	be.PutUint16(head[4:], uint16(length))
}

// flowPort is a source port by which routers with several ways spread the flows
// of the frames, and keep the packets of one in order: RFC 7348, section 5.
func flowPort(frame []byte) uint16 {
	h := uint32(2166136261) // FNV-1a
	mix := func(b []byte) {
		for _, c := range b {
			h = (h ^ uint32(c)) * 16777619
		}
	}
	l, ok := packet.Parse(frame)
	switch src, dst := l.Addresses(frame); {
	case !ok:
	case src == nil:
		mix(frame[:12])
	default:
		mix(src)
		mix(dst)
		if l.L4 > 0 && !l.Fragment {
			mix(frame[l.L4 : l.L4+4])
		}
	}
	return 0xc000 | uint16(h^h>>16)&0x3fff
}
