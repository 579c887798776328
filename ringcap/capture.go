package ringcap

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tproxyd/tproxyd/ringcap/files"
	"github.com/tproxyd/tproxyd/ringcap/pcapng"
)

// Encoding says how a block becomes what is written: see ringcap/pcapng.
type Encoding uint8

// Encodings.
const (
	// Copy is for headers. It leaves the ring's memory as it is, which is in the
	// cache of the processor that received the packets: to write there costs
	// both of them more than a copy.
	Copy    Encoding = iota
	Compact          // for headers, where there is no memory for a copy
	InPlace          // for payload
)

// stopGrace is how long the blocks that are left at the end may take to be
// written. A disk that stays full must not keep a daemon from ending.
const stopGrace = 2 * time.Second

// Capture writes a ring to files.
type Capture struct {
	Ring     *Ring
	Files    *files.Writer
	Encoder  pcapng.Encoder
	Encoding Encoding
}

// Run writes until ctx ends and everything that was captured by then is
// written. A disk that is full or slow makes it hold the ring's blocks: the ring
// freezes and counts, and Run goes on when the disk does. The files are the
// caller's to close.
func (c *Capture) Run(ctx context.Context) error {
	writing, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(stopGrace, cancel) })
	defer stop()
	for b, err := range c.Ring.blocksBy(ctx, consumed) {
		if b == nil {
			return err
		}
		// A block that is wrong somewhere is good up to there.
		if err := c.write(writing, b); err != nil {
			return fmt.Errorf("write capture of %s: %w", c.Ring.Interface(), err)
		}
	}
	return nil
}

func (c *Capture) write(ctx context.Context, b *Block) error {
	var run, tail []byte
	switch c.Encoding {
	case InPlace:
		run, tail = c.Encoder.InPlace(&b.Block)
	case Compact:
		run = c.Encoder.Compact(&b.Block)
	default:
		return c.Encoder.CopyTo(&b.Block, func(run []byte, packets int) error { return c.Files.Write(ctx, run, packets) })
	}
	n := c.Encoder.Packets()
	if len(tail) == 0 {
		return c.Files.Write(ctx, run, n)
	}
	return errors.Join(c.Files.Write(ctx, run, n-1), c.Files.Write(ctx, tail, 1))
}

// Statistics is what the trailer of a file says about the ring: the counts are
// since the ring was opened, as of a card.
func (r *Ring) Statistics(number uint32, f files.File) pcapng.Statistics {
	s, err := r.Stats()
	out := pcapng.Statistics{
		Interface: number, Start: f.Start, Stop: f.End,
		Accepted: s.Packets, Dropped: s.Drops, Delivered: s.Packets - s.Drops,
	}
	if s.Freezes > 0 {
		out.Comment = fmt.Sprintf("ring froze %d times, %d packets dropped", s.Freezes, s.Drops)
	}
	if f.LastError != nil {
		out.Comment += fmt.Sprintf("; writing failed %d times for %v: %v", f.Errors, f.Stalled.Round(time.Millisecond), f.LastError)
	}
	if err != nil {
		out.Comment += fmt.Sprintf("; counts may be short: %v", err)
	}
	return out
}
