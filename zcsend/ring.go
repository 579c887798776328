package zcsend

import (
	"errors"
	"fmt"
	"math/bits"
	"os"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/tproxyd/tproxyd/internal/sys"
)

// slotHeader is where the data of a slot begins: TPACKET2_HDRLEN without the
// sockaddr_ll, which only receiving has (tpacket_parse_header()).
const slotHeader = 32

// ring is a PACKET_TX_RING of version 2. Its slots go round in three stretches,
// counted without end:
//
//	tail ── in flight ── next ── queued ── head ── free ── tail + slots
//
// A slot is ours while its tp_status is TP_STATUS_AVAILABLE (0), or
// TP_STATUS_SEND_REQUEST and not yet taken. We store the status when a frame is
// queued, and the kernel when it takes the frame (TP_STATUS_SENDING), when it
// has read it (TP_STATUS_AVAILABLE), or does not like it
// (TP_STATUS_WRONG_FORMAT). The kernel looks at slots only in kick, which the
// goroutine that filled them makes.
//
// PACKET_LOSS is off. With it the kernel would pass over a frame that it
// refuses, and nobody would know which one that was; without it the kernel
// stops there, the frame is counted as refused and the ones behind it move up.
type ring struct {
	packetSocket

	memory []byte
	size   int // of a slot
	slots  uint64
	offset int // of a frame in its slot

	tail, next, head uint64
}

func openRing(dev *device, cfg *Config) (engine, error) {
	socket, err := openPacketSocket(cfg)
	if err != nil {
		return nil, err
	}
	r := &ring{packetSocket: socket, offset: slotHeader}
	longest := dev.longest(true)
	if cfg.SuperFrames {
		r.offset += vnetSize
		longest = maxSuper
	}
	if err := r.mapRing(longest, cfg.RingBytes); err != nil {
		return nil, errors.Join(err, r.close())
	}
	if err := r.rebind(dev.index); err != nil {
		return nil, errors.Join(err, r.close())
	}
	r.buffer(2 * len(r.memory))
	return r, nil
}

// mapRing makes a ring of about total bytes for frames of up to longest bytes.
func (r *ring) mapRing(longest, total int) error {
	if e := sys.SetInt(r.fd, unix.SOL_PACKET, unix.PACKET_VERSION, unix.TPACKET_V2); e != 0 {
		return os.NewSyscallError("setsockopt(PACKET_VERSION)", e)
	}
	req := geometry(r.offset+longest, total)
	for {
		err := unix.SetsockoptTpacketReq(r.fd, unix.SOL_PACKET, unix.PACKET_TX_RING, &req)
		if err == nil {
			break
		}
		if !errors.Is(err, unix.ENOMEM) || req.Block_nr == 1 {
			return fmt.Errorf("make ring of %d slots: %w", req.Frame_nr, os.NewSyscallError("setsockopt(PACKET_TX_RING)", err))
		}
		req.Frame_nr = req.Frame_nr / req.Block_nr * (req.Block_nr / 2)
		req.Block_nr /= 2
	}
	var err error
	r.memory, err = unix.Mmap(r.fd, 0, int(req.Block_size*req.Block_nr), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return os.NewSyscallError("mmap(PACKET_TX_RING)", err)
	}
	r.size, r.slots = int(req.Frame_size), uint64(req.Frame_nr)
	return nil
}

// geometry fits slots of at least slot bytes into blocks without a remainder,
// so that slots follow each other in memory. Slots of a power of two fill a
// block of 64 KiB; larger ones are blocks of their own, of whole pages.
func geometry(slot, total int) unix.TpacketReq {
	const block = 64 << 10
	page := os.Getpagesize()
	size := 1 << bits.Len(uint(slot-1))
	per := block / size
	if size > block {
		size, per = (slot+page-1)/page*page, 1
	}
	blocks := max(1, total/(size*per))
	return unix.TpacketReq{
		Block_size: uint32(size * per), Block_nr: uint32(blocks),
		Frame_size: uint32(size), Frame_nr: uint32(blocks * per),
	}
}

func (r *ring) slot(i uint64) []byte {
	at := int(i%r.slots) * r.size
	return r.memory[at : at+r.size]
}

func (r *ring) status(i uint64) uint32 { return atomic.LoadUint32(&header(r.slot(i)).Status) }

func (r *ring) setStatus(i uint64, status uint32) {
	atomic.StoreUint32(&header(r.slot(i)).Status, status)
}

// reap takes back slots that the kernel has read, in their order.
func (r *ring) reap() {
	for r.tail < r.next && r.status(r.tail) == unix.TP_STATUS_AVAILABLE {
		r.tail++
	}
}

func (r *ring) reserve(n int) []byte {
	if r.head-r.tail == r.slots {
		if r.reap(); r.head-r.tail == r.slots {
			return nil
		}
	}
	if n > r.size-r.offset {
		return nil
	}
	s := r.slot(r.head)
	return s[r.offset : r.offset+n : r.offset+n]
}

func (r *ring) commit(data []byte, vnet vnetHeader) error {
	s := r.slot(r.head)
	copy(s[slotHeader:r.offset], vnet[:])
	header(s).Len = uint32(r.offset - slotHeader + len(data))
	r.setStatus(r.head, unix.TP_STATUS_SEND_REQUEST)
	r.head++
	return nil
}

func (r *ring) flush() (taken, bytes int, e sys.Errno) {
	for r.next < r.head {
		before := r.next
		e = kick(r.fd)
		for r.next < r.head {
			status := r.status(r.next)
			if status == unix.TP_STATUS_SEND_REQUEST {
				break
			}
			if status == unix.TP_STATUS_WRONG_FORMAT {
				if e == 0 {
					e = unix.EINVAL
				}
				return taken, bytes, e
			}
			bytes += int(header(r.slot(r.next)).Len) - (r.offset - slotHeader)
			taken++
			r.next++
		}
		if e == 0 && r.next == before {
			e = unix.EAGAIN
		}
		if e != 0 && r.next < r.head {
			return taken, bytes, e
		}
	}
	return taken, bytes, 0
}

// drop moves up the frames behind the first n. The kernel goes on where it
// stopped, at next.
func (r *ring) drop(n int) {
	r.head -= uint64(n)
	for i := r.next; i < r.head; i++ {
		to, from := r.slot(i), r.slot(i+uint64(n))
		length := header(from).Len
		copy(to[slotHeader:], from[slotHeader:slotHeader+int(length)])
		header(to).Len = length
		r.setStatus(i, unix.TP_STATUS_SEND_REQUEST)
	}
	for i := range uint64(n) {
		r.setStatus(r.head+i, unix.TP_STATUS_AVAILABLE)
	}
}

func (r *ring) queued() int { return int(r.head - r.next) }

func (r *ring) inFlight() int {
	r.reap()
	return int(r.next - r.tail)
}

func (r *ring) borrows() bool { return false }
func (r *ring) call() string  { return "sendto(PACKET_TX_RING)" }

// close gives the ring back. The kernel keeps the pages of what it still
// sends.
func (r *ring) close() error {
	var err error
	if r.memory != nil {
		err = os.NewSyscallError("munmap(PACKET_TX_RING)", unix.Munmap(r.memory))
	}
	sys.Close(r.fd)
	return err
}
