package ringcap

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"github.com/tproxyd/tproxyd/internal/tpacket"
)

// Ring is a capture on one interface.
type Ring struct {
	cfg    Config
	geo    tpacket.Geometry
	sock   *socket
	mem    *mapping
	poller *poller

	blocks []Block
	next   int  // the block that the kernel hands over next
	down   bool // the interface is down or away; the reader's

	mu     sync.Mutex // guards stats, which the kernel clears when read
	stats  Stats
	taken  atomic.Uint64 // frames in the blocks taken so far
	bytes  atomic.Uint64
	blocky atomic.Uint64
	stale  atomic.Uint64
	closed atomic.Bool
	busy   atomic.Bool // Blocks is running
}

// Stats are counts since the ring was opened.
type Stats struct {
	// Packets passed the filter; Drops of them found no room in the ring,
	// which happens while it is frozen. Freezes is how often it froze.
	// These three are the kernel's.
	Packets, Drops, Freezes uint64
	// Taken packets, of Bytes captured bytes in Blocks blocks, have been
	// handed to the reader. At the end Taken = Packets - Drops.
	Taken, Bytes, Blocks uint64
	// Stale frames were counted by the kernel and hold nothing.
	Stale uint64
	// Downs is how often the interface went down or away.
	Downs uint64
}

// Open makes a ring and starts capturing into it. It needs CAP_NET_RAW.
func Open(cfg Config) (*Ring, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	r := &Ring{cfg: cfg}
	if err := r.open(); err != nil {
		r.release()
		return nil, fmt.Errorf("open ring on %s: %w", cfg.Interface, err)
	}
	return r, nil
}

func (r *Ring) open() (err error) {
	if r.sock, err = openSocket(r.cfg); err != nil {
		return err
	}
	if r.geo, err = r.sock.setRing(r.cfg); err != nil {
		return err
	}
	if r.mem, err = mapRing(r.sock.fd, r.geo.Bytes()); err != nil {
		return err
	}
	r.blocks = make([]Block, r.geo.Blocks)
	for i := range r.blocks {
		r.blocks[i].ring = r
		r.blocks[i].mem = r.mem.bytes[i*r.geo.BlockSize : (i+1)*r.geo.BlockSize]
	}
	if r.poller, err = newPoller(r.sock.fd); err != nil {
		return err
	}
	// Nothing was received until here, as the socket has had no protocol.
	return r.sock.bind(r.cfg)
}

func (r *Ring) release() {
	if r.poller != nil {
		r.poller.close()
	}
	if r.sock != nil {
		r.sock.close()
	}
	if r.mem != nil {
		r.mem.drop()
	}
}

// Close ends the capture. The memory goes when the last retained block has
// been released. It must not be called while Blocks runs: end that by its
// context.
func (r *Ring) Close() error {
	if r.busy.Load() {
		return errors.New("close ring: Blocks is still running")
	}
	if r.closed.Swap(true) {
		return nil
	}
	r.release()
	return nil
}

// Geometry is what the kernel gave, which may be less than was asked for.
func (r *Ring) Geometry() (blockSize, blocks int) { return r.geo.BlockSize, r.geo.Blocks }

// VNet says whether frames carry virtio headers.
func (r *Ring) VNet() bool { return !r.cfg.NoOffload }

// Interface is the name that the ring was opened with.
func (r *Ring) Interface() string { return r.cfg.Interface }

// SetFilter replaces the filter. Packets that are in the ring stay there. A
// nil program takes everything.
func (r *Ring) SetFilter(program []bpf.RawInstruction) error {
	return r.sock.setFilter(program)
}

// SetProgram makes an eBPF program the filter, as ringcap/flowbpf has one. It
// sees every packet, so it does not go with the direction Out.
func (r *Ring) SetProgram(fd int) error {
	if r.cfg.Direction == Out {
		return errors.New("attach eBPF filter: the ring has the direction out, which takes a filter of its own")
	}
	return os.NewSyscallError("setsockopt(SO_ATTACH_BPF)", unix.SetsockoptInt(r.sock.fd, unix.SOL_SOCKET, unix.SO_ATTACH_BPF, fd))
}

// Stats returns what has happened since Open. It may be called at any time
// before Close, by anybody.
func (r *Ring) Stats() (Stats, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.closed.Load() {
		if err := r.sock.addStats(&r.stats); err != nil {
			return r.stats, err
		}
	}
	s := r.stats
	s.Taken, s.Bytes, s.Blocks, s.Stale = r.taken.Load(), r.bytes.Load(), r.blocky.Load(), r.stale.Load()
	return s, nil
}

// Held is how many blocks user space has and the kernel cannot fill.
func (r *Ring) Held() int {
	n := 0
	for i := range r.blocks {
		if tpacket.Ready(r.blocks[i].mem) {
			n++
		}
	}
	return n
}

// mapping is the memory of a ring, shared by the ring and its retained blocks.
type mapping struct {
	bytes []byte
	refs  atomic.Int64
}

func mapRing(fd, size int) (*mapping, error) {
	b, err := unix.Mmap(fd, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("mmap %d bytes of the ring: %w", size, err)
	}
	m := &mapping{bytes: b}
	m.refs.Store(1)
	return m, nil
}

func (m *mapping) take() { m.refs.Add(1) }

func (m *mapping) drop() {
	if m.refs.Add(-1) == 0 {
		// The only error there is would be a wrong address.
		_ = unix.Munmap(m.bytes)
	}
}
