package tap

import (
	"net/netip"
	"time"

	"github.com/tproxyd/tproxyd/ringcap"
	"github.com/tproxyd/tproxyd/ringcap/pcapng"
)

// Config is everything that a Manager runs. It is a plain value: what is made
// of it is compared with the Config before by Apply.
type Config struct {
	// Interfaces are names, and patterns of path.Match. None are all that are
	// up and no loopback. A pattern is looked at again by every Apply.
	Interfaces []string
	Ring       Ring

	// Endpoints are the addresses of listeners and backends, for the filter in
	// the kernel. Without any, or with too many, the rings take all of TCP and
	// UDP.
	Endpoints []Endpoint
	// Names of addresses, of backends above all, go into each file.
	Names []pcapng.Name

	// Settle is how long a packet waits for its flow to become known, 20 ms if
	// 0. Only blocks with a packet that may begin a flow wait.
	Settle time.Duration

	Captures []Capture
	Recorder *Recorder // nil is none
}

// Ring is the geometry of the rings for captures and viewers, one or more for
// each interface. Zero values are the defaults of ringcap.Config.
type Ring struct {
	BlockSize, Blocks int
	Retire            time.Duration
	Timestamp         ringcap.Timestamp
	// Fanout rings share an interface, one if 0.
	Fanout     int
	FanoutMode ringcap.FanoutMode
}

// Endpoint is an address that a service listens on, or a backend has. Zero
// fields stand for all.
type Endpoint struct {
	Protocol uint8 // unix.IPPROTO_TCP or IPPROTO_UDP
	Addr     netip.Addr
	Port     uint16
}

// SnapHeaders as a snap length cuts behind the header of TCP or UDP.
const SnapHeaders = -1

// Selection says which packets are taken. Zero fields select nothing away.
type Selection struct {
	Flow               uint64
	Services, Backends []string
	Clients            []netip.Prefix
	Protocol           uint8
	Direction          ringcap.Direction
	// Sample is how many of a hundred flows are taken, both legs of each.
	Sample int
	// Filter is an expression of ringcap/filter.
	Filter string
	// Strays takes packets that belong to no flow, too, if nothing of flows is
	// selected.
	Strays bool
	// Snap cuts packets to a length: 0 is none.
	Snap int
}

// Capture writes to files.
type Capture struct {
	Name string
	Selection

	Directory            string // made if it is not there
	MaxBytes, MaxPackets int64  // limits of a file: see files.Config
	MaxDuration          time.Duration
	KeepFiles            int
	KeepBytes            int64
	Compress, Recycle    bool

	// Wire cuts super-frames into what the wire would carry.
	Wire bool
	// Manual captures run only after Start.
	Manual bool
}

// Recorder keeps the last packets in memory, for dumps.
type Recorder struct {
	Memory int64 // of all interfaces together, 64 MiB if 0
	Snap   int   // as in Selection

	// A Trigger writes what was Before and After it to a file in Directory.
	Directory     string
	Before, After time.Duration
	Triggers      []string // reasons that count, all if there are none
	PerMinute     int      // files, 6 if 0
	KeepFiles     int      // 0 is all
}
