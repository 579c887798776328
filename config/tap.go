package config

import (
	"fmt"
	"net/netip"
	"path"
	"path/filepath"
	"strings"
	"time"
)

// Tap holds what of the traffic is captured, by packet rings on the interfaces.
type Tap struct {
	Enabled     bool     // false: nothing of it runs
	Interfaces  []string // names or patterns of path.Match; nil: all that are up, but lo
	BlockSize   int64    // of a ring's block in bytes, a power of two
	Blocks      int      // of a ring, never 0
	Retire      time.Duration
	Timestamp   TapTimestamp
	Fanout      TapFanout
	FanoutRings int           // per interface, 0: one per CPU; 0 without Fanout
	Settle      time.Duration // what a packet waits for its flow to become known
	Captures    []Capture
	Recorder    *Recorder // nil: none
}

// Capture is a lasting capture to files.
type Capture struct {
	Name      string // unique; the files begin with it
	Directory string // absolute

	// Which packets: those that match all of it. Nil and "" match any.
	Services  []string
	Backends  []string // names, of any of Services
	Clients   []netip.Prefix
	Protocol  Protocol
	Filter    string // in the language of tcpdump; its syntax is not looked at here
	Direction Direction
	Sample    int // per cent of the flows, 1 to 100

	Profile    Profile
	SnapLength int // bytes of a packet with ProfilePayload, 0: all; else 0

	MaxSize     int64         // of a file in bytes, 0: no limit
	MaxDuration time.Duration // of a file, 0: no limit
	MaxPackets  int           // of a file, 0: no limit
	KeepFiles   int           // complete ones, 0: all
	KeepSize    int64         // of all complete ones in bytes, 0: no limit
	Compress    bool
	GSO         GSO
	Autostart   bool
}

// Recorder is the flight recorder: what has passed lately, in memory.
type Recorder struct {
	Memory              int64 // bytes of ring that hold history
	Directory           string
	Before, After       time.Duration // the part of a dump on both sides of its trigger
	Triggers            []Trigger     // nil: only by hand
	RTTThreshold        time.Duration // never 0 with TriggerRTT, else 0
	RetransmitThreshold int           // of a flow, never 0 with TriggerRetransmits, else 0
	Rate                int           // dumps a minute that triggers make, never 0
	KeepFiles           int           // 0: all
	Profile             Profile
	SnapLength          int // as of a Capture
}

// What bounds the memory of the tap and the lengths of packets.
const (
	minBlockSize  = 16 << 10
	maxBlockSize  = 16 << 20
	maxRingBlocks = 65536
	maxRingSize   = 16 << 30
	minSnapLength = 64
	maxSnapLength = 262144 // more than a super-frame
)

// readTap reads [tap]; nil for none.
func (t table) readTap(services []Service) *Tap {
	t, ok := t.nested(kindTap)
	if !ok {
		return nil
	}
	tap := &Tap{
		Enabled:    t.boolean("enabled"),
		Interfaces: t.interfaces(),
		BlockSize:  t.size("block_size", sizes{least: minBlockSize, most: maxBlockSize}),
		Blocks:     int(t.between("blocks", 4, maxRingBlocks)),
		Retire:     t.duration("retire", span{least: time.Millisecond, most: time.Minute}),
		Timestamp:  choice(t, "timestamp", TimestampSoftware, TimestampHardware),
		Settle:     t.duration("settle", span{least: time.Millisecond, most: time.Second}),
	}
	t.readRings(tap)
	lines := make(map[string]int)
	for _, c := range t.tables(kindCapture) {
		tap.Captures = append(tap.Captures, c.readCapture(services, lines))
	}
	tap.Recorder = t.readRecorder()
	return tap
}

// readRings reads the shape of the rings.
func (t table) readRings(tap *Tap) {
	if n := tap.BlockSize; n > 0 && n&(n-1) != 0 {
		t.r.failf(t.at("block_size"), "write a power of two, such as "+t.field("block_size").example(), "%s is no power of two", formatSize(n))
	} else if n > 0 && int64(tap.Blocks) > maxRingSize/n {
		t.r.failf(t.at("blocks"), "write fewer or smaller blocks", "%d blocks of %s are more than %s", tap.Blocks, formatSize(n), formatSize(maxRingSize))
	}
	before := len(t.r.errs)
	tap.Fanout = choice(t, "fanout", FanoutNone, FanoutCPU, FanoutHash)
	tap.FanoutRings = int(t.integer("fanout_rings", 64))
	if tap.Fanout == FanoutNone && tap.FanoutRings > 0 && len(t.r.errs) == before {
		t.r.failf(t.at("fanout_rings"), `write fanout = "cpu" or fanout = "hash", or remove it`, "without fanout there is one ring")
	}
}

// autoInterfaces stands alone for what the tap chooses itself.
const autoInterfaces = "auto"

// interfaces gives the patterns of interfaces, nil for those that the tap chooses.
func (t table) interfaces() []string {
	if _, given := t.values["interfaces"]; !given {
		return nil
	}
	items, ok := t.list("interfaces")
	if ok && len(items) == 0 {
		t.r.failf(t.at("interfaces"), "write "+t.field("interfaces").example()+" for all that are up", "no interface is given")
	}
	var out []string
	lines := make(map[string]int)
	for _, item := range items {
		_, err := path.Match(item.text, "")
		switch {
		case item.text == autoInterfaces && len(items) > 1:
			t.r.failf(item.at, "remove it, or all others", `"auto" stands alone`)
		case item.text == autoInterfaces:
			return nil
		case item.text == "" || strings.ContainsAny(item.text, "/ \t\n\x00") || err != nil || len(item.text) > 64:
			t.r.failf(item.at, `write a name or a pattern, such as "eth0" or "veth*"`, "%s is no name or pattern of an interface", quote(item.text))
		case t.isNew(item, lines):
			out = append(out, item.text)
		}
	}
	return out
}

// isNew notes an element that is in the list already.
func (t table) isNew(item listItem, lines map[string]int) bool {
	if line, taken := lines[item.text]; taken {
		t.r.failf(item.at, "list it once", "%s is at line %d too", quote(item.text), line)
		return false
	}
	lines[item.text] = item.at.line
	return true
}

// directory gives the absolute path of a directory, which has to be given.
func (t table) directory() string {
	s, given, ok := t.text("directory")
	switch {
	case !ok:
	case !given:
		t.r.failf(t.here(), "add "+t.field("directory").example(), "there is no directory for the files")
	case !filepath.IsAbs(s) || strings.ContainsRune(s, 0):
		t.r.failf(t.at("directory"), "write an absolute path, such as "+t.field("directory").example(), "%s is no absolute path", quote(s))
	default:
		return filepath.Clean(s)
	}
	return ""
}

// snap reads how much of a packet is kept. Headers are the default, and payload
// has to be asked for: it is other people's.
func (t table) snap() (Profile, int) {
	before := len(t.r.errs)
	profile := choice(t, "profile", ProfileHeaders, ProfilePayload)
	n := int(t.integer("snap_length", maxSnapLength))
	switch {
	case len(t.r.errs) > before || n == 0:
	case n < minSnapLength:
		t.r.failf(t.at("snap_length"), fmt.Sprintf("write 0 for all, or a number from %d to %d", minSnapLength, maxSnapLength), "%d would cut headers", n)
	case profile == ProfileHeaders:
		t.r.failf(t.at("snap_length"), `remove it, or write profile = "payload"`, `profile = "headers" cuts every packet behind its headers`)
	default:
		return profile, n
	}
	return profile, 0
}
