package admin

import (
	"context"
	"errors"
	"io"
)

// Tap is what the API asks of the captures. Its methods are called by several
// goroutines at once. All but TapStatus return ErrNoTap while there is none.
type Tap interface {
	// TapStatus returns what is captured, or tells that there is no tap.
	TapStatus() (TapStatus, error)
	// SetCapture starts or stops a capture. It returns ErrNoCapture if none has
	// that name.
	SetCapture(name string, run bool) error
	// Live writes packets to w as they come, until ctx ends or there were
	// q.Count. What it returns before its first write is about q if it wraps
	// ErrRefused.
	Live(ctx context.Context, q TapQuery, w io.Writer) error
	// Dump writes the packets of a while ago to w. ErrNoRecorder is returned if
	// nothing keeps them.
	Dump(ctx context.Context, q TapQuery, w io.Writer) error
}

// What a Tap answers.
var (
	ErrNoTap      = errors.New("the tap is not configured: it needs [tap] in the configuration, with enabled = true")
	ErrNoCapture  = errors.New("no such capture")
	ErrNoRecorder = errors.New("there is no recorder: it needs [tap.recorder] in the configuration")
)

// TapStatus is what is captured. Counts are since the daemon's start.
type TapStatus struct {
	Captures   array[TapCapture]   `json:"captures"`
	Viewers    array[TapCounts]    `json:"viewers"`
	Interfaces array[TapInterface] `json:"interfaces"`

	Flows        int    `json:"flows"`
	Forgotten    uint64 `json:"forgotten"` // flows that there was no room for
	Dumps        uint64 `json:"dumps"`
	DumpsRefused uint64 `json:"dumps_refused"` // triggers that came too often
}

// TapCounts are what a capture or viewer has got, and what it has missed.
type TapCounts struct {
	Name      string `json:"name"`
	Packets   uint64 `json:"packets"`
	Bytes     uint64 `json:"bytes"`
	RingDrops uint64 `json:"ring_drops"` // by the kernel, since the rings were full
	Freezes   uint64 `json:"freezes"`    // of rings
	SinkDrops uint64 `json:"sink_drops"` // packets that were not taken in time
}

// TapCapture is one capture to files.
type TapCapture struct {
	TapCounts
	Running   bool   `json:"running"`
	Directory string `json:"directory"`
	Files     int64  `json:"files"` // begun
	LastError string `json:"last_error,omitempty"`
}

// TapInterface is an interface with its rings.
type TapInterface struct {
	Name     string `json:"name"`
	Recorder bool   `json:"recorder"` // the recorder's ring, not that of captures
	Packets  uint64 `json:"packets"`
	Drops    uint64 `json:"drops"`
	Freezes  uint64 `json:"freezes"`
	Held     int    `json:"blocks_held"` // that the kernel cannot fill now
	Blocks   int    `json:"blocks"`
}
