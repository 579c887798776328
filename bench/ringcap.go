package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"os"
	"runtime"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/tproxyd/tproxyd/internal/tpacket"
	"github.com/tproxyd/tproxyd/internal/tpacket/tpackettest"
	"github.com/tproxyd/tproxyd/ringcap"
	"github.com/tproxyd/tproxyd/ringcap/files"
	"github.com/tproxyd/tproxyd/ringcap/pcapng"

	"github.com/tproxyd/tproxyd/bench/wire"
)

// The memory that every subject's ring has.
const (
	ringBlock  = 1 << 20
	ringBlocks = 64
	ringBytes  = ringBlock * ringBlocks

	// ringRetire is how long a packet may wait in a block, where the subjects can be told.
	ringRetire = 100 * time.Millisecond
)

// What ringcap does with the blocks.
const (
	encodeCopy    = "copy"
	encodeInPlace = "in-place"
	recordOnly    = "record"
)

// keptFiles is how many files there are when they are written over.
const keptFiles = 4

// capturedReport is what a part that captures answers to stop.
type capturedReport struct {
	Packets uint64 `json:"packets"` // that were written, or recorded
	Drops   uint64 `json:"drops"`
	Bytes   uint64 `json:"bytes"` // of packets
}

// runRingcap captures from INTERFACE to DIR as the daemon would, until it is told
// to stop.
func runRingcap(args []string) error {
	if len(args) != 4 {
		return errArguments
	}
	maxBytes, err := strconv.ParseInt(args[3], 10, 64)
	if err != nil {
		return err
	}
	ring, err := ringcap.Open(ringcap.Config{Interface: args[1], BlockSize: ringBlock, Blocks: ringBlocks, Retire: ringRetire})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	done := make(chan error, 1)
	if args[0] == recordOnly {
		recorder, err := ringcap.NewRecorder(ring, 0)
		if err != nil {
			return err
		}
		go func() { done <- recorder.Run(ctx) }()
	} else {
		c, err := newCapture(ring, args[0], args[2], maxBytes)
		if err != nil {
			return err
		}
		go func() { done <- errors.Join(c.Run(ctx), c.Files.Close(context.WithoutCancel(ctx))) }()
	}
	return answerStop(func() (any, error) {
		cancel()
		err := <-done
		st, err1 := ring.Stats()
		return capturedReport{Packets: st.Taken, Drops: st.Drops, Bytes: st.Bytes}, errors.Join(err, err1, ring.Close())
	})
}

func newCapture(ring *ringcap.Ring, encoding, dir string, maxBytes int64) (*ringcap.Capture, error) {
	c := &ringcap.Capture{Ring: ring}
	if encoding == encodeInPlace {
		c.Encoding = ringcap.InPlace
	}
	cfg := files.Config{
		Dir: dir, Prefix: "bench",
		Header: func(dst []byte) []byte {
			dst = pcapng.AppendSection(dst, pcapng.Section{Application: "bench"})
			return pcapng.AppendInterface(dst, pcapng.Interface{Name: ring.Interface()})
		},
		Trailer: func(dst []byte, f files.File) []byte {
			return pcapng.AppendStatistics(dst, ring.Statistics(0, f))
		},
	}
	if maxBytes > 0 {
		cfg.MaxBytes, cfg.KeepFiles, cfg.Recycle = maxBytes, keptFiles, true
	}
	var err error
	c.Files, err = files.New(cfg)
	return c, err
}

// answerStop says that it is there, and ends with the answer to the first line.
// Without one, as after SIGTERM, it just ends.
func answerStop(stop func() (any, error)) error {
	enc := json.NewEncoder(os.Stdout)
	if err := enc.Encode(struct{}{}); err != nil {
		return err
	}
	asked := bufio.NewScanner(os.Stdin).Scan()
	report, err := stop()
	if asked {
		err = errors.Join(err, enc.Encode(report))
	}
	return err
}

// parsedReport is what the part that walks over blocks answers.
type parsedReport struct {
	Frames  uint64 `json:"frames"`
	Mallocs uint64 `json:"mallocs"`
}

// runParse walks over a block of valid frames again and again.
func runParse([]string) error {
	packets := make([]tpackettest.Packet, 1<<16)
	for i := range packets {
		packets[i].Data = wire.Frame(64, 1)
	}
	mem := tpackettest.Aligned(256 << 10)
	tpackettest.Ring{}.Fill(mem, 1, packets...)
	tpackettest.Close(mem)
	var frames, sum atomic.Uint64
	go func() {
		var b tpacket.Block
		for {
			if ready, err := b.Load(mem, false); !ready || err != nil {
				return // then nothing is counted, which fails
			}
			n, bytes := uint64(0), 0
			for f := range b.Frames() {
				n++
				bytes += len(f.Data())
			}
			frames.Add(n)
			sum.Add(uint64(bytes))
		}
	}()
	enc := json.NewEncoder(os.Stdout)
	answer := func() error {
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return enc.Encode(parsedReport{Frames: frames.Load(), Mallocs: m.Mallocs})
	}
	for frames.Load() == 0 {
		time.Sleep(paceStep)
	}
	err := answer()
	for scan := bufio.NewScanner(os.Stdin); err == nil && scan.Scan(); {
		err = answer()
	}
	return err
}
