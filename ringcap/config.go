package ringcap

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"github.com/tproxyd/tproxyd/internal/tpacket"
)

// Direction says which packets of an interface are captured.
type Direction uint8

// Directions. Out costs a copy of what comes in, too, unless the filter is
// made to refuse it.
const (
	Both Direction = iota
	In             // by PACKET_IGNORE_OUTGOING
	Out            // by two instructions before the filter
)

// Timestamp says whose clock times the packets.
type Timestamp uint8

// Timestamps, both in nanoseconds.
const (
	Software Timestamp = iota
	Hardware           // the card's if it has one and stamps, the system's otherwise
)

// FanoutMode says how the rings of a group share the packets.
type FanoutMode uint8

// Modes of a fanout group.
const (
	FanoutHash FanoutMode = iota // a flow stays on one ring, both directions
	FanoutCPU                    // the ring of the CPU that received the packet
)

// Fanout makes a ring one of a group that shares the packets of an interface.
type Fanout struct {
	ID   uint16 // of the group, within the network namespace
	Mode FanoutMode
}

// Config of a ring. Zero values are defaults.
type Config struct {
	Interface string

	// BlockSize and Blocks, 1 MiB and 64 by default. If the kernel has not so
	// much memory in one piece, less is taken: see [Ring.Geometry].
	BlockSize, Blocks int

	// Retire is how long a packet may wait for its block to be full, 10 ms by
	// default. From Linux 6.18 it is exact, before that a jiffy is the least.
	// When traffic is thin each Retire costs a block, so that a reader may
	// pause for Blocks times Retire.
	Retire time.Duration

	Direction Direction
	Timestamp Timestamp

	// NoOffload does without PACKET_VNET_HDR, which tells the segment size of
	// super-frames and whether a checksum is still to be computed.
	NoOffload bool

	// Filter is a program of classic BPF; the value it returns is the number of
	// bytes to capture. Nil takes all of everything.
	Filter []bpf.RawInstruction

	Fanout *Fanout
}

const (
	defaultBlockSize = 1 << 20
	defaultBlocks    = 64
	defaultRetire    = 10 * time.Millisecond
	maxRetire        = time.Minute

	// reserve keeps the packet at a multiple of four and leaves room for a VLAN
	// tag between its frame's header and itself.
	reserve     = 2
	reserveVNet = 4
)

func (c Config) withDefaults() (Config, error) {
	if c.BlockSize == 0 {
		c.BlockSize = defaultBlockSize
	}
	if c.Blocks == 0 {
		c.Blocks = defaultBlocks
	}
	if c.Retire == 0 {
		c.Retire = defaultRetire
	}
	geo := tpacket.Geometry{BlockSize: c.BlockSize, Blocks: c.Blocks}
	switch err := geo.Check(os.Getpagesize()); {
	case c.Interface == "":
		return c, errors.New("check ring: no interface")
	case len(c.Interface) >= unix.IFNAMSIZ:
		return c, fmt.Errorf("check ring: interface name %q is too long", c.Interface)
	case err != nil:
		return c, err
	case c.Retire < time.Millisecond || c.Retire > maxRetire:
		return c, fmt.Errorf("check ring: retire time %v is not within 1 ms and %v", c.Retire, maxRetire)
	case len(c.Filter) > unix.BPF_MAXINSNS:
		return c, fmt.Errorf("check ring: filter has %d instructions, at most %d", len(c.Filter), unix.BPF_MAXINSNS)
	}
	return c, nil
}

func (c Config) reserve() int {
	if c.NoOffload {
		return reserve
	}
	return reserveVNet
}

// outgoing are two instructions before a filter that refuse what was not sent
// by this host.
func outgoing(program []bpf.RawInstruction) []bpf.RawInstruction {
	if len(program) == 0 {
		program = []bpf.RawInstruction{{Op: unix.BPF_RET | unix.BPF_K, K: 0xffffffff}}
	}
	head := []bpf.RawInstruction{
		{Op: unix.BPF_LD | unix.BPF_B | unix.BPF_ABS, K: 0xfffff000 + 4}, // SKF_AD_OFF + SKF_AD_PKTTYPE
		{Op: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jt: 1, K: unix.PACKET_OUTGOING},
		{Op: unix.BPF_RET | unix.BPF_K, K: 0},
	}
	return append(head, program...)
}
