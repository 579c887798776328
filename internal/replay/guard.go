package replay

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

const (
	maxBlock      = 1 << 20
	maxInterfaces = 1024
)

// The types of pcapng blocks that are about packets.
const (
	blockInterface = 1
	blockPacket    = 2 // obsolete
	blockSimple    = 3
	blockEnhanced  = 6
	blockSection   = 0x0a0d0d0a
	byteOrderMagic = 0x1a2b3c4d
)

// guard passes on a pcapng file block by block, each only when it is whole and
// its lengths agree, and leaves out blocks that are not about packets. So what
// reads from it never holds more than a block, and never takes the inside of
// one for another.
type guard struct {
	r          io.Reader
	order      binary.ByteOrder
	block      []byte
	rest       []byte // of block, to be passed on
	interfaces int
	err        error // why it ended: pcapgo takes some errors for the file's end
}

func (g *guard) Read(p []byte) (int, error) {
	for len(g.rest) == 0 {
		if g.err != nil {
			return 0, g.err
		}
		g.err = g.next()
	}
	n := copy(p, g.rest)
	g.rest = g.rest[n:]
	return n, nil
}

// next reads a block. The end of the file is io.EOF only between blocks.
func (g *guard) next() error {
	g.block = append(g.block[:0], make([]byte, 12)...)
	if _, err := io.ReadFull(g.r, g.block); err != nil {
		return err
	}
	if err := g.section(); err != nil {
		return err
	}
	kind, n := g.order.Uint32(g.block), g.order.Uint32(g.block[4:])
	if n < 12 || n > maxBlock || n%4 != 0 {
		return fmt.Errorf("pcapng block of %d bytes", n)
	}
	g.block = append(g.block, make([]byte, n-12)...)
	if _, err := io.ReadFull(g.r, g.block[12:]); err != nil {
		return noEOF(err)
	}
	if g.order.Uint32(g.block[n-4:]) != n {
		return errors.New("pcapng block whose two lengths differ")
	}
	keep, err := g.check(kind, g.block[8:n-4])
	if keep {
		g.rest = g.block
	}
	return err
}

// section finds the byte order, which a section header may change.
func (g *guard) section() error {
	if binary.LittleEndian.Uint32(g.block) == blockSection {
		switch uint32(byteOrderMagic) {
		case binary.LittleEndian.Uint32(g.block[8:]):
			g.order = binary.LittleEndian
		case binary.BigEndian.Uint32(g.block[8:]):
			g.order = binary.BigEndian
		default:
			return errors.New("pcapng section without a byte order")
		}
		g.interfaces = 0
	}
	if g.order == nil {
		return errors.New("pcapng file without a section header")
	}
	return nil
}

// check says whether a block is to be passed on, and whether it is wrong.
func (g *guard) check(kind uint32, body []byte) (keep bool, err error) {
	fixed, length := 0, uint32(0)
	switch kind {
	case blockSection:
		fixed = 16
	case blockInterface:
		fixed = 8
		if g.interfaces++; g.interfaces > maxInterfaces {
			return false, fmt.Errorf("pcapng section with more than %d interfaces", maxInterfaces)
		}
	case blockEnhanced, blockPacket:
		fixed = 20
		if len(body) >= fixed {
			length = g.order.Uint32(body[12:])
		}
	case blockSimple:
		fixed = 4 // its captured length depends on the interface's: see below
	default:
		return false, nil
	}
	if len(body) < fixed || int64(length) > int64(len(body)-fixed) || length > maxPacket {
		return false, fmt.Errorf("pcapng block of type %d with a wrong length", kind)
	}
	if kind == blockSimple && int64(g.order.Uint32(body)) > int64(len(body)-fixed) {
		// A packet that was cut by the interface's snap length. It could not be
		// sent anyway.
		return false, nil
	}
	return true, nil
}
