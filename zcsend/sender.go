package zcsend

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tproxyd/tproxyd/internal/packet"
	"github.com/tproxyd/tproxyd/internal/sys"
)

// Defaults and bounds of a Config.
const (
	defaultBatch = 64
	maxBatch     = 1024 // UIO_MAXIOV, sendmmsg(2)
	defaultRing  = 4 << 20
	maxSuper     = 0xffff + packet.EthernetHeader + packet.VLANTag
)

// Config says how to send. Only Interface has no usable zero value.
type Config struct {
	Interface string

	// Method is by default [Ring] on an interface with hardware behind it,
	// whose driver reads the frames where they lie, and otherwise [MMsg]; or
	// [GSO] with SuperFrames.
	Method Method

	// SuperFrames lets [Ring] take super-frames too, in slots of 68 KiB. GSO
	// always does, other methods cannot.
	SuperFrames bool

	// Batch is how many frames are handed over in one system call: 64 by
	// default, 1,024 at most.
	Batch int

	// RingBytes is the memory of a ring: 4 MiB by default. The kernel needs it
	// in pieces of contiguous pages; if it has not that much, half is taken, and
	// so on.
	RingBytes int

	// Bypass hands frames to the driver without a queueing discipline
	// (PACKET_QDISC_BYPASS), for Ring and MMsg. What that costs: no taps see
	// these frames, so tcpdump on this interface does not show them; no
	// shaping, no class, no nftables egress hook applies; and a driver whose
	// queue is full makes them wait one by one.
	Bypass bool

	// DropWhenFull refuses frames that would have to wait, instead of waiting.
	DropWhenFull bool
}

// Frame is one Ethernet frame without its frame check sequence.
type Frame struct {
	Data []byte

	// SegmentSize makes this a super-frame of TCP or UDP over IP: it leaves as
	// frames of so many bytes of payload each, cut by the device or else by the
	// kernel. Its checksums are always computed. 0 is an ordinary frame.
	SegmentSize int

	// Checksum asks for the checksums of IPv4, TCP, UDP and ICMP to be computed.
	// They are written into Data.
	Checksum bool
}

// engine is one method: a queue whose front goes to the kernel.
type engine interface {
	// reserve returns room for a frame of n bytes at the end of the queue, or
	// nil if it is full.
	reserve(n int) []byte
	// commit queues a frame. Its data begins what was reserved last, unless the
	// engine borrows.
	commit(data []byte, vnet vnetHeader) error
	// flush hands over frames until none is left, and then returns no errno, or
	// until the kernel does not take the first.
	flush() (taken, bytes int, e sys.Errno)
	// drop forgets the first n queued frames.
	drop(n int)
	queued() int
	// inFlight counts what flush has handed over and the kernel still reads.
	inFlight() int
	// borrows says whether commit takes data that was not reserved, which then
	// has to stay as it is until flush or drop.
	borrows() bool
	// call is the system call that flush makes, for errors.
	call() string
	// socket is one to ask about the interface, and to wait for if waits.
	socket() (fd int, waits bool)
	// rebind binds to another interface index.
	rebind(index int) error
	close() error
}

// Sender sends frames by one interface. One goroutine at a time may use it;
// only Stats may be called by others.
type Sender struct {
	dev      device
	method   Method
	batch    int
	super    bool
	dropFull bool
	gone     bool          // the interface: look for a new one first
	patience time.Duration // with a queue that takes nothing
	blocked  time.Time     // since when it does
	engine   engine
	waiter   waiter
	reserved []byte
	counters counters
}

// Open makes a Sender for an interface of the network namespace that the
// calling thread is in. It needs CAP_NET_RAW.
func Open(cfg Config) (*Sender, error) {
	s, err := open(cfg)
	if err != nil {
		return nil, fmt.Errorf("open sender on %s: %w", cfg.Interface, err)
	}
	return s, nil
}

func open(cfg Config) (*Sender, error) {
	dev, err := findDevice(cfg.Interface)
	if err != nil {
		return nil, err
	}
	if cfg.Method == Auto {
		cfg.Method = choose(&dev, cfg.SuperFrames)
	}
	if cfg.Batch == 0 {
		cfg.Batch = defaultBatch
	}
	if cfg.RingBytes == 0 {
		cfg.RingBytes = defaultRing
	}
	if err := check(&cfg, &dev); err != nil {
		return nil, err
	}
	s := &Sender{
		dev: dev, method: cfg.Method, batch: cfg.Batch, dropFull: cfg.DropWhenFull,
		super: cfg.Method == GSO || cfg.SuperFrames, patience: stallLimit,
	}
	switch cfg.Method {
	case Ring:
		s.engine, err = openRing(&dev, &cfg)
	case MMsg, GSO:
		s.engine, err = openMMsg(&dev, &cfg)
	case SpliceUDP:
		s.engine, err = openSplice(&dev, &cfg, newUDPSockets(&dev))
	case SpliceRaw:
		s.engine, err = openSplice(&dev, &cfg, newRawSockets(&dev))
	default:
		err = fmt.Errorf("unknown method %q", string(cfg.Method))
	}
	if err != nil {
		return nil, err
	}
	s.waiter.init()
	return s, nil
}

// choose is what Auto means. A ring saves the copy only where a driver reads
// the frames; software devices copy them anyway, and more slowly.
func choose(dev *device, super bool) Method {
	switch {
	case dev.physical:
		return Ring
	case super:
		return GSO
	}
	return MMsg
}

func check(cfg *Config, dev *device) error {
	super := cfg.SuperFrames || cfg.Method == GSO
	switch {
	case cfg.Batch < 0 || cfg.Batch > maxBatch:
		return fmt.Errorf("batch of %d frames: want 1 to %d", cfg.Batch, maxBatch)
	case cfg.RingBytes < 0:
		return fmt.Errorf("ring of %d bytes", cfg.RingBytes)
	case cfg.SuperFrames && cfg.Method != Ring && cfg.Method != GSO:
		return fmt.Errorf("method %s cannot send super-frames: use gso or ring", cfg.Method)
	case cfg.Bypass && super:
		// dev_direct_xmit() drops what the device cannot cut by itself.
		return errors.New("super-frames cannot bypass the queueing discipline: the kernel cuts them there")
	case cfg.Bypass && cfg.Method.routed():
		return fmt.Errorf("method %s cannot bypass the queueing discipline: the kernel routes its packets", cfg.Method)
	case !dev.ethernet && !cfg.Method.routed():
		return fmt.Errorf("interface has no Ethernet headers: use %s or %s", SpliceUDP, SpliceRaw)
	}
	return nil
}

// Method is the method that is used, never Auto.
func (s *Sender) Method() Method { return s.method }

// Interface is the name of the interface.
func (s *Sender) Interface() string { return s.dev.name }

// MTU is the interface's, as it was when last asked.
func (s *Sender) MTU() int { return s.dev.mtu }

// Stats counts what happened to the frames so far. It may be called at any
// time.
func (s *Sender) Stats() Stats { return s.counters.stats() }

// Send hands frames to the kernel, waiting for room if it must. It returns how
// many were taken and why the first of the others was not; each frame is
// either taken or refused and counted so. A frame that is refused does not keep
// the others from being sent. But when the link is down, ctx ends, or there is
// no room (at once with DropWhenFull, otherwise when the queue behind the
// socket takes nothing for a second), all that are left are refused.
//
// When Send returns, the frames' memory is the caller's again.
func (s *Sender) Send(ctx context.Context, frames []Frame) (int, error) {
	var first error
	before := s.counters.refused.Load()
	for i := range frames {
		err := s.queue(ctx, &frames[i])
		if first == nil {
			first = err
		}
		if err != nil && final(err) {
			s.counters.refused.Add(uint64(len(frames) - i - 1))
			break
		}
	}
	if err := s.Flush(ctx); first == nil {
		first = err
	}
	return len(frames) - int(s.counters.refused.Load()-before), first
}

// final says whether an error of one frame is that of all behind it.
func final(err error) bool {
	return !errors.Is(err, ErrTooLong) && !errors.Is(err, ErrFormat)
}

// queue puts one frame into the engine, with a copy if it has to be. The frame
// is counted if it is refused.
func (s *Sender) queue(ctx context.Context, f *Frame) error {
	if err := s.checkLength(f.Data, f.SegmentSize); err != nil {
		return s.refuse(err)
	}
	if s.engine.borrows() {
		if err := s.makeRoom(ctx); err != nil {
			return s.refuse(err)
		}
		return s.enqueue(f)
	}
	room, err := s.Reserve(ctx, len(f.Data))
	if err != nil {
		return err
	}
	s.reserved = nil
	copy(room, f.Data)
	return s.enqueue(&Frame{Data: room, SegmentSize: f.SegmentSize, Checksum: f.Checksum})
}

// Reserve returns memory for a frame of n bytes, to be filled and given to
// Commit. With Ring and the splice methods it is the memory that the kernel
// will read, so that nothing is copied on the way. If it fails a frame has been
// refused. Reserving again without Commit gives up the first.
func (s *Sender) Reserve(ctx context.Context, n int) ([]byte, error) {
	limit := s.dev.longest(true)
	if s.super {
		limit = maxSuper
	}
	if n > limit {
		if err := s.dev.askMTU(s.fd()); err != nil || n > max(limit, s.dev.longest(true)) {
			return nil, s.refuse(s.tooLong(n, limit))
		}
	}
	if err := s.makeRoom(ctx); err != nil {
		return nil, s.refuse(err)
	}
	s.reserved = s.engine.reserve(n)
	if s.reserved == nil { // longer than a slot, after the MTU was raised
		return nil, s.refuse(s.tooLong(n, limit))
	}
	return s.reserved, nil
}

// Commit queues a frame whose Data is in the memory that Reserve returned, from
// its beginning on. It does not wait; [Sender.Flush] hands the queue over, and
// so does Reserve when a batch is full.
func (s *Sender) Commit(f Frame) error {
	if len(f.Data) == 0 || len(s.reserved) < len(f.Data) || &s.reserved[0] != &f.Data[0] {
		return s.refuse(fmt.Errorf("%w: not in the memory that was reserved", ErrFormat))
	}
	s.reserved = nil
	if err := s.checkLength(f.Data, f.SegmentSize); err != nil {
		return s.refuse(err)
	}
	err := s.enqueue(&f)
	s.counters.queued.Store(uint64(s.engine.queued()))
	return err
}

// enqueue leaves the caller's Frame as it is, but for checksums in its Data.
func (s *Sender) enqueue(f *Frame) error {
	if f.SegmentSize == 0 && !f.Checksum {
		if err := s.engine.commit(f.Data, vnetHeader{}); err != nil {
			return s.refuse(err)
		}
		return nil
	}
	prepared := *f
	vnet, err := prepare(&prepared, s.dev.mtu)
	if err == nil {
		err = s.engine.commit(prepared.Data, vnet)
	}
	if err != nil {
		return s.refuse(err)
	}
	return nil
}

// refuse counts a frame and passes the reason on.
func (s *Sender) refuse(err error) error {
	s.counters.refused.Add(1)
	return err
}

// checkLength refuses before anything is copied what the kernel would refuse.
func (s *Sender) checkLength(data []byte, segment int) error {
	switch n := len(data); {
	case n < packet.EthernetHeader:
		return fmt.Errorf("%w: %d bytes are no Ethernet header", ErrFormat, n)
	case segment != 0 && !s.super:
		return fmt.Errorf("%w: a super-frame needs method %s, or %s with SuperFrames", ErrFormat, GSO, Ring)
	case segment != 0:
		if n > maxSuper {
			return s.tooLong(n, maxSuper)
		}
	case n > s.dev.longest(tagged(data)):
		// The MTU may have been raised.
		if err := s.dev.askMTU(s.fd()); err != nil || n > s.dev.longest(tagged(data)) {
			return s.tooLong(n, s.dev.longest(tagged(data)))
		}
	}
	return nil
}

func (s *Sender) tooLong(n, limit int) error {
	return fmt.Errorf("%w: %d bytes, %s takes %d", ErrTooLong, n, s.dev.name, limit)
}

func (s *Sender) fd() int {
	fd, _ := s.engine.socket()
	return fd
}

// Close gives the sockets and the memory back. Frames that were not flushed are
// refused; those in flight are sent.
func (s *Sender) Close() error {
	s.counters.refused.Add(uint64(s.engine.queued()))
	s.engine.drop(s.engine.queued())
	s.counters.queued.Store(0)
	s.count(0, 0)
	err := s.engine.close()
	return errors.Join(err, s.waiter.close())
}

// reconnect binds to a new interface of the old name, if the old one went away.
func (s *Sender) reconnect() error {
	err := s.dev.askIndex(s.fd())
	if err == nil {
		err = s.engine.rebind(s.dev.index)
	}
	if err == nil {
		err = s.dev.askMTU(s.fd())
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrLinkDown, err)
	}
	s.gone = false
	return nil
}

// lost notes what an errno says about the interface.
func (s *Sender) lost(e sys.Errno) { s.gone = s.gone || e == unix.ENXIO || e == unix.ENODEV }
