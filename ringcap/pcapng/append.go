package pcapng

import (
	"encoding/binary"
	"math"
	"net/netip"
	"time"
)

var ne = binary.NativeEndian

// Block types.
const (
	typeInterface  = 1
	typeNames      = 4
	typeStatistics = 5
	typePacket     = 6
	typeSection    = 0x0a0d0d0a
)

// Options. The numbers from 2 on depend on the block.
const (
	optEnd     = 0
	optComment = 1
	optCustom  = 2989 // binary, editors keep it

	optIfName, optIfDescription, optIfTsresol, optIfFilter, optIfOS = 2, 3, 9, 11, 12

	optHardware, optOS, optApplication = 2, 3, 4

	optFlags, optPacketID = 2, 5

	optStart, optStop, optReceived, optIfDrop, optFilterAccept, optOSDrop, optDelivered = 2, 3, 4, 5, 6, 7, 8
)

// PEN is the private enterprise number of our custom options.
const PEN = 32473

const linkEthernet = 1

// begin starts a block; finish fills in its length.
func begin(dst []byte, kind uint32) (out []byte, start int) {
	start = len(dst)
	return ne.AppendUint32(ne.AppendUint32(dst, kind), 0), start
}

func finish(dst []byte, start int) []byte {
	n := uint32(len(dst) - start + 4)
	ne.PutUint32(dst[start+4:], n)
	return ne.AppendUint32(dst, n)
}

func pad(dst []byte, n int) []byte {
	var zero [4]byte
	return append(dst, zero[:(4-n&3)&3]...)
}

func option(dst []byte, code uint16, n int) []byte {
	return ne.AppendUint16(ne.AppendUint16(dst, code), uint16(n))
}

// text appends an option unless the text is empty. What is too long for an
// option is cut.
func text(dst []byte, code uint16, s string) []byte {
	if s == "" {
		return dst
	}
	s = s[:min(len(s), math.MaxUint16-3)]
	return pad(append(option(dst, code, len(s)), s...), len(s))
}

func number(dst []byte, code uint16, v uint64) []byte {
	return ne.AppendUint64(option(dst, code, 8), v)
}

func end(dst []byte) []byte { return option(dst, optEnd, 0) }

// stamp is a time in the two halves of the format.
func stamp(dst []byte, ns int64) []byte {
	return ne.AppendUint32(ne.AppendUint32(dst, uint32(uint64(ns)>>32)), uint32(ns))
}

// Section is what a file begins with.
type Section struct{ Hardware, OS, Application, Comment string }

// AppendSection appends a Section Header Block. Interfaces count from 0 again
// after it.
func AppendSection(dst []byte, s Section) []byte {
	dst, start := begin(dst, typeSection)
	dst = ne.AppendUint32(dst, 0x1a2b3c4d)
	dst = ne.AppendUint16(ne.AppendUint16(dst, 1), 0) // version 1.0
	dst = ne.AppendUint64(dst, math.MaxUint64)        // length not known
	dst = text(dst, optComment, s.Comment)
	dst = text(dst, optHardware, s.Hardware)
	dst = text(dst, optOS, s.OS)
	dst = text(dst, optApplication, s.Application)
	return finish(end(dst), start)
}

// Interface is one that packets are from. The first is number 0.
type Interface struct {
	Name, Description, Filter, OS string
	Snap                          uint32 // 0 is no limit
}

// AppendInterface appends an Interface Description Block: Ethernet, and times
// in nanoseconds.
func AppendInterface(dst []byte, i Interface) []byte {
	dst, start := begin(dst, typeInterface)
	dst = ne.AppendUint32(ne.AppendUint16(ne.AppendUint16(dst, linkEthernet), 0), i.Snap)
	dst = text(dst, optIfName, i.Name)
	dst = text(dst, optIfDescription, i.Description)
	dst = append(option(dst, optIfTsresol, 1), 9, 0, 0, 0)
	if i.Filter != "" {
		dst = text(dst, optIfFilter, "\x00"+i.Filter) // 0: as for libpcap
	}
	dst = text(dst, optIfOS, i.OS)
	return finish(end(dst), start)
}

// Statistics is what happened on an interface.
type Statistics struct {
	Interface   uint32
	Start, Stop time.Time
	Accepted    uint64 // passed the filter
	Dropped     uint64 // of these, found no room
	Delivered   uint64 // are in the file
	Comment     string
}

// AppendStatistics appends an Interface Statistics Block.
func AppendStatistics(dst []byte, s Statistics) []byte {
	dst, start := begin(dst, typeStatistics)
	dst = stamp(ne.AppendUint32(dst, s.Interface), s.Stop.UnixNano())
	dst = text(dst, optComment, s.Comment)
	dst = stamp(option(dst, optStart, 8), s.Start.UnixNano())
	dst = stamp(option(dst, optStop, 8), s.Stop.UnixNano())
	dst = number(dst, optFilterAccept, s.Accepted)
	dst = number(dst, optOSDrop, s.Dropped)
	dst = number(dst, optDelivered, s.Delivered)
	return finish(end(dst), start)
}

// Name is what an address is called.
type Name struct {
	Addr netip.Addr
	Name string
}

// AppendNames appends a Name Resolution Block.
func AppendNames(dst []byte, names []Name) []byte {
	const record4, record6 = 1, 2
	dst, start := begin(dst, typeNames)
	for _, n := range names {
		kind, addr := uint16(record4), n.Addr.AsSlice()
		if len(addr) == 16 {
			kind = record6
		}
		if len(addr) == 0 || n.Name == "" {
			continue
		}
		name := n.Name[:min(len(n.Name), 255)]
		size := len(addr) + len(name) + 1
		dst = append(append(append(option(dst, kind, size), addr...), name...), 0)
		dst = pad(dst, size)
	}
	return finish(end(dst), start)
}
