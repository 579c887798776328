package replay

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"
	"github.com/klauspost/compress/zstd"
)

const (
	maxPacket = 256 << 10
	maxWindow = 8 << 20 // of zstd
)

// Packet is one packet of a capture.
type Packet struct {
	Data   []byte
	Time   time.Time // zero where the file has none
	Length int       // on the wire: more than Data where the capture cut it
}

// Reader reads a capture in pcap or pcapng, plain or compressed.
type Reader struct {
	packets interface {
		ReadPacketData() ([]byte, gopacket.CaptureInfo, error)
	}
	guard   *guard // of pcapng, where each packet has a link type
	skipped uint64
	zstd    *zstd.Decoder
}

// NewReader reads the beginning of a capture. The Reader has to be closed.
func NewReader(r io.Reader) (*Reader, error) {
	out := &Reader{}
	if err := out.open(bufio.NewReader(r)); err != nil {
		out.Close()
		return nil, fmt.Errorf("read capture: %w", noEOF(err))
	}
	return out, nil
}

func (r *Reader) open(b *bufio.Reader) error {
	b, err := r.unpack(b)
	if err != nil {
		return err
	}
	magic, err := b.Peek(4)
	if err != nil {
		return err
	}
	if bytes.Equal(magic, []byte{0x0a, 0x0d, 0x0d, 0x0a}) {
		r.guard = &guard{r: b}
		ng, err := pcapgo.NewNgReader(r.guard, pcapgo.NgReaderOptions{WantMixedLinkType: true, SkipUnknownVersion: true})
		if err != nil {
			return err
		}
		r.packets = ng
		return nil
	}
	if magic[0] == 0x1f && magic[1] == 0x8b {
		return errors.New("compressed twice") // pcapgo would unpack it, without bounds of ours
	}
	p, err := pcapgo.NewReader(b)
	if err != nil {
		return err
	}
	p.SetSnaplen(min(p.Snaplen(), maxPacket))
	r.packets = p
	if p.LinkType() != layers.LinkTypeEthernet {
		return fmt.Errorf("link type is %v: only Ethernet can be sent", p.LinkType())
	}
	return nil
}

// unpack undoes one compression.
func (r *Reader) unpack(b *bufio.Reader) (*bufio.Reader, error) {
	magic, err := b.Peek(4)
	if err != nil {
		return nil, err
	}
	switch {
	case magic[0] == 0x1f && magic[1] == 0x8b:
		g, err := gzip.NewReader(b)
		if err != nil {
			return nil, err
		}
		return bufio.NewReader(g), nil
	case bytes.Equal(magic, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		z, err := zstd.NewReader(b, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderLowmem(true))
		if err != nil {
			return nil, err
		}
		r.zstd = z
		return bufio.NewReader(z), nil
	}
	return b, nil
}

// Next returns the next Ethernet packet. The end of the file is io.EOF, a file
// that ends within a packet io.ErrUnexpectedEOF.
func (r *Reader) Next() (Packet, error) {
	for {
		data, info, err := r.packets.ReadPacketData()
		if err != nil && r.guard != nil && r.guard.err != nil {
			err = r.guard.err
		}
		if errors.Is(err, io.EOF) {
			return Packet{}, io.EOF
		}
		if err != nil {
			return Packet{}, fmt.Errorf("read packet: %w", err)
		}
		if r.guard != nil && !ethernet(info) {
			r.skipped++
			continue
		}
		return Packet{Data: data, Time: info.Timestamp, Length: info.Length}, nil
	}
}

func ethernet(info gopacket.CaptureInfo) bool {
	return len(info.AncillaryData) > 0 && info.AncillaryData[0] == layers.LinkTypeEthernet
}

// Skipped counts packets of interfaces that are not Ethernet.
func (r *Reader) Skipped() uint64 { return r.skipped }

// Close ends decompression. It does not close what the Reader reads from.
func (r *Reader) Close() {
	if r.zstd != nil {
		r.zstd.Close()
	}
}

func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
