package wire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Held is what capture files hold of the frames of this package.
type Held struct{ Packets, Bytes uint64 }

func (h *Held) add(frame []byte) {
	if len(frame) >= 12 && bytes.Equal(frame[6:12], SourceMAC[:]) {
		h.Packets++
		h.Bytes += uint64(len(frame))
	}
}

// CountDir counts in all files of a directory.
func CountDir(dir string) (h Held, err error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return h, err
	}
	for _, e := range entries {
		if !e.Type().IsRegular() {
			continue
		}
		if err := h.countFile(filepath.Join(dir, e.Name())); err != nil {
			return h, err
		}
	}
	return h, nil
}

func (h *Held) countFile(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // only read
	info, err := f.Stat()
	if err != nil || info.Size() == 0 {
		return err
	}
	b, err := unix.Mmap(int(f.Fd()), 0, int(info.Size()), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return fmt.Errorf("mmap %s: %w", path, err)
	}
	if err := h.Count(b); err != nil {
		err = fmt.Errorf("%s: %w", path, err)
		return errors.Join(err, unix.Munmap(b))
	}
	return unix.Munmap(b)
}

// ErrFormat is a file that is neither pcap nor pcapng of this byte order.
var ErrFormat = errors.New("no capture file")

// Count counts in a capture file. One that ends within a packet is counted up
// to there.
func (h *Held) Count(b []byte) error {
	const pcap, pcapNanos, section = 0xa1b2c3d4, 0xa1b23c4d, 0x0a0d0d0a
	if len(b) < 24 {
		return ErrFormat
	}
	switch binary.NativeEndian.Uint32(b) {
	case pcap, pcapNanos:
		h.pcap(b[24:])
	case section:
		h.pcapng(b)
	default:
		return ErrFormat
	}
	return nil
}

func (h *Held) pcap(b []byte) {
	const header = 16
	for len(b) >= header {
		n := uint64(binary.NativeEndian.Uint32(b[8:]))
		if n > uint64(len(b)-header) {
			return
		}
		h.add(b[header : header+n])
		b = b[header+n:]
	}
}

func (h *Held) pcapng(b []byte) {
	const enhanced, header = 6, 28
	for len(b) >= 12 {
		kind, n := binary.NativeEndian.Uint32(b), uint64(binary.NativeEndian.Uint32(b[4:]))
		if n < 12 || n > uint64(len(b)) {
			return
		}
		if kind == enhanced && n > header {
			if size := uint64(binary.NativeEndian.Uint32(b[20:])); size <= n-header {
				h.add(b[header : header+size])
			}
		}
		b = b[n:]
	}
}
