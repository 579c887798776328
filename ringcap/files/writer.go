package files

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// Writer writes capture files. Its methods may be called by anybody; one waits
// for another, also for one that waits for a disk.
type Writer struct {
	cfg Config

	mu     sync.Mutex
	cur    *current // nil between files
	seq    int
	buf    []byte
	ended  bool
	failed File // errors before there was a file

	statsMu sync.Mutex
	stats   Stats

	compressor *compressor
}

// Stats are counts since New.
type Stats struct {
	Files, Packets, Bytes int64
	// Errors is how many attempts to write failed, and LastError the last of
	// them; it is nil again when writing goes on.
	Errors    int64
	LastError error
	// Lost packets were in a file that somebody deleted while it was written.
	Lost int64
	// Uncompressed files could not be compressed and were left as they are.
	Uncompressed int64
}

// current is the file that is being written.
type current struct {
	File
	file *os.File
	name string // when it is complete
	good int64  // up to here it is whole
}

// New makes a Writer and removes what an earlier one left unfinished. It makes
// no file before there is something to write.
func New(cfg Config) (*Writer, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	w := &Writer{cfg: cfg}
	if err := w.removeUnfinished(); err != nil {
		return nil, err
	}
	if cfg.Compress {
		w.compressor = newCompressor(w.countUncompressed, w.keep)
	}
	return w, nil
}

// Stats never waits.
func (w *Writer) Stats() Stats {
	w.statsMu.Lock()
	defer w.statsMu.Unlock()
	return w.stats
}

func (w *Writer) count(add func(*Stats)) {
	w.statsMu.Lock()
	defer w.statsMu.Unlock()
	add(&w.stats)
}

func (w *Writer) countUncompressed() { w.count(func(s *Stats) { s.Uncompressed++ }) }

// Write writes a run of whole blocks with the given number of packets, to more
// than one file if it has to. It returns an error only when ctx has ended
// before everything was written.
func (w *Writer) Write(ctx context.Context, run []byte, packets int) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ended {
		return fmt.Errorf("write capture file: %w", os.ErrClosed)
	}
	for len(run) > 0 {
		if w.cur != nil && w.expired() {
			if err := w.finish(ctx); err != nil {
				return err
			}
		}
		part, n := w.fit(run, packets)
		if len(part) == 0 {
			if err := w.finish(ctx); err != nil {
				return err
			}
			continue
		}
		if err := w.retry(ctx, func() error { return w.put(part, n) }); err != nil {
			return err
		}
		run, packets = run[len(part):], packets-n
	}
	return nil
}

// put makes one attempt to write a part of a run at the end of the file.
func (w *Writer) put(part []byte, packets int) error {
	if err := w.open(); err != nil {
		return err
	}
	c := w.cur
	if gone, err := c.gone(); gone || err != nil {
		w.abandon()
		return errors.Join(fmt.Errorf("write %s: it was deleted", c.name), err)
	}
	if _, err := c.file.WriteAt(part, c.good); err != nil {
		// With less than a whole packet at its end the file would be damaged.
		return errors.Join(fmt.Errorf("write capture file: %w", err), w.cut(c))
	}
	c.good += int64(len(part))
	c.Packets += int64(packets)
	w.count(func(s *Stats) { s.Packets += int64(packets); s.Bytes += int64(len(part)); s.LastError = nil })
	return nil
}

// cut takes away what is behind the last whole packet. A file that is recycled
// loses its old contents then, too.
func (w *Writer) cut(c *current) error { return c.file.Truncate(c.good) }

// retry tries until it succeeds or ctx ends.
func (w *Writer) retry(ctx context.Context, try func() error) error {
	for {
		err := try()
		if err == nil {
			return nil
		}
		f := &w.failed
		if w.cur != nil {
			f = &w.cur.File
		}
		f.Errors++
		f.LastError = err
		w.count(func(s *Stats) { s.Errors++; s.LastError = err })
		before := w.cfg.Now()
		timer := time.NewTimer(w.cfg.Retry)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return errors.Join(err, ctx.Err())
		}
		f.Stalled += w.cfg.Now().Sub(before)
	}
}

func (w *Writer) expired() bool {
	return w.cfg.MaxDuration > 0 && w.cfg.Now().Sub(w.cur.Start) >= w.cfg.MaxDuration
}

// Expire ends the file if it is older than MaxDuration, so that a quiet link
// does not keep one open. It does not wait for a Write that waits.
func (w *Writer) Expire(ctx context.Context) error {
	if !w.mu.TryLock() {
		return nil
	}
	defer w.mu.Unlock()
	if w.cur == nil || !w.expired() {
		return nil
	}
	return w.finish(ctx)
}

// Rotate ends the file; the next packet begins another.
func (w *Writer) Rotate(ctx context.Context) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.finish(ctx)
}

// Close ends the last file and waits for the compression. When ctx ends, a
// file that cannot get its trailer is left without.
func (w *Writer) Close(ctx context.Context) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ended {
		return nil
	}
	w.ended = true
	err := w.finish(ctx)
	if w.compressor != nil {
		w.compressor.close()
	}
	return err
}

// fit is the part of a run that still belongs to the file, with the number of
// its packets.
func (w *Writer) fit(run []byte, packets int) ([]byte, int) {
	room, left := int64(len(run)), int64(packets)
	var size, have int64
	if w.cur != nil {
		size, have = w.cur.good, w.cur.Packets
	} else {
		w.buf = w.cfg.Header(w.buf[:0])
		size = int64(len(w.buf))
	}
	if w.cfg.MaxBytes > 0 {
		room = w.cfg.MaxBytes - TrailerSize - size
	}
	if w.cfg.MaxPackets > 0 {
		left = w.cfg.MaxPackets - have
	}
	if room >= int64(len(run)) && left >= int64(packets) {
		return run, packets
	}
	at, n := 0, 0
	for at < len(run) {
		length := blockLen(run[at:])
		over := int64(at+length) > room || int64(n) >= left
		if over && (have > 0 || n > 0) {
			break
		}
		at += length
		n++
	}
	return run[:at], n
}

// blockLen is the length of the first block of a run. Runs are made by
// ringcap/pcapng; anything else goes to the file as it is.
func blockLen(run []byte) int {
	if len(run) < 12 {
		return len(run)
	}
	n := uint64(binary.NativeEndian.Uint32(run[4:]))
	if n < 12 || n > uint64(len(run)) {
		return len(run)
	}
	return int(n)
}

func (w *Writer) path(name string) string { return filepath.Join(w.cfg.Dir, name) }
