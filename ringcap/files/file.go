package files

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	suffix     = ".pcapng"
	unfinished = ".tmp"
	compressed = ".zst"
)

// open makes a file unless there is one, with its header.
func (w *Writer) open() error {
	if w.cur != nil {
		return nil
	}
	now := w.cfg.Now()
	w.seq++
	// Names sort by time, also of files within one second.
	name := fmt.Sprintf("%s-%s-%06d%s", w.cfg.Prefix, now.UTC().Format("20060102T150405.000Z"), w.seq%1_000_000, suffix)
	if w.cfg.Recycle {
		if err := w.recycle(name); err != nil {
			return err
		}
	}
	f, err := os.OpenFile(w.path(name+unfinished), os.O_WRONLY|os.O_CREATE, 0o640)
	if err != nil {
		return fmt.Errorf("make capture file: %w", err)
	}
	header := w.cfg.Header(w.buf[:0])
	w.buf = header
	if _, err := f.WriteAt(header, 0); err != nil {
		return errors.Join(fmt.Errorf("write capture file: %w", err), f.Close(), os.Remove(f.Name()))
	}
	w.cur = &current{file: f, name: name, good: int64(len(header)), File: w.failed}
	w.cur.Start = now
	w.failed = File{}
	return nil
}

// recycle gives the oldest file the name of the next one, once there are
// enough.
func (w *Writer) recycle(name string) error {
	complete, err := w.complete()
	if err != nil || len(complete) < w.cfg.KeepFiles {
		return err
	}
	err = os.Rename(w.path(complete[0].Name()), w.path(name+unfinished))
	if err != nil {
		return fmt.Errorf("recycle capture file: %w", err)
	}
	return nil
}

// gone says whether the file has been deleted.
func (c *current) gone() (bool, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(c.file.Fd()), &st); err != nil {
		return false, os.NewSyscallError("fstat", err)
	}
	return st.Nlink == 0, nil
}

// abandon gives up a file that is not there any more.
func (w *Writer) abandon() {
	c := w.cur
	w.cur = nil
	w.failed = c.File
	w.failed.Packets, w.failed.Bytes = 0, 0
	_ = c.file.Close() // nobody can read it
	w.count(func(s *Stats) { s.Lost += c.Packets })
}

// finish writes the trailer and gives the file its name. When ctx ends before
// there is room for the trailer, the file goes without.
func (w *Writer) finish(ctx context.Context) error {
	c := w.cur
	if c == nil {
		return nil
	}
	c.End = w.cfg.Now()
	err := w.retry(ctx, func() error { return w.end(c) })
	if w.cur != c { // deleted, and counted
		return nil
	}
	if err != nil {
		err = errors.Join(err, w.cut(c))
	}
	w.cur = nil
	if err := errors.Join(err, c.file.Close()); err != nil {
		return errors.Join(fmt.Errorf("end capture file: %w", err), w.rename(c))
	}
	if err := w.rename(c); err != nil {
		return err
	}
	w.count(func(s *Stats) { s.Files++ })
	if w.compressor != nil {
		w.compressor.add(w.path(c.name))
		return nil
	}
	w.keep()
	return nil
}

// end makes one attempt to write the trailer.
func (w *Writer) end(c *current) error {
	if gone, err := c.gone(); gone || err != nil {
		w.abandon()
		return err
	}
	c.Bytes = c.good
	w.buf = w.cfg.Trailer(w.buf[:0], c.File)
	if _, err := c.file.WriteAt(w.buf, c.good); err != nil {
		return errors.Join(fmt.Errorf("end capture file: %w", err), w.cut(c))
	}
	return c.file.Truncate(c.good + int64(len(w.buf)))
}

func (w *Writer) rename(c *current) error {
	if err := os.Rename(w.path(c.name+unfinished), w.path(c.name)); err != nil {
		w.count(func(s *Stats) { s.Errors++; s.LastError = err; s.Lost += c.Packets })
		if errors.Is(err, fs.ErrNotExist) {
			return nil // counted; the next file is another
		}
		return fmt.Errorf("end capture file: %w", err)
	}
	return nil
}

// complete lists the complete files, the oldest first.
func (w *Writer) complete() ([]fs.DirEntry, error) {
	all, err := os.ReadDir(w.cfg.Dir)
	if err != nil {
		return nil, fmt.Errorf("list capture files: %w", err)
	}
	return slices.DeleteFunc(all, func(e fs.DirEntry) bool {
		name := strings.TrimSuffix(e.Name(), compressed)
		return !w.ours(name) || !strings.HasSuffix(name, suffix)
	}), nil
}

// ours says whether a name is one that this writer gives, and not that of
// another whose prefix begins alike.
func (w *Writer) ours(name string) bool {
	rest, ok := strings.CutPrefix(name, w.cfg.Prefix+"-")
	return ok && len(rest) > 20 && strings.IndexByte(rest, 'T') == 8 && rest[0] >= '0' && rest[0] <= '9'
}

// keep deletes what is too much. What cannot be deleted is tried again with
// the next file.
func (w *Writer) keep() {
	complete, err := w.complete()
	if err != nil {
		return
	}
	sizes, total := make([]int64, len(complete)), int64(0)
	for i, e := range complete {
		if info, err := e.Info(); err == nil {
			sizes[i] = info.Size()
			total += sizes[i]
		}
	}
	for i := 0; i < len(complete)-1; i++ { // never the one that has just been written
		tooMany := w.cfg.KeepFiles > 0 && len(complete)-i > w.cfg.KeepFiles
		tooLarge := w.cfg.KeepBytes > 0 && total > w.cfg.KeepBytes
		if !tooMany && !tooLarge {
			return
		}
		_ = os.Remove(w.path(complete[i].Name()))
		total -= sizes[i]
	}
}

func (w *Writer) removeUnfinished() error {
	all, err := os.ReadDir(w.cfg.Dir)
	if err != nil {
		return fmt.Errorf("list capture files: %w", err)
	}
	for _, e := range all {
		if w.ours(e.Name()) && strings.HasSuffix(e.Name(), unfinished) {
			if err := os.Remove(w.path(e.Name())); err != nil {
				return fmt.Errorf("remove unfinished capture file: %w", err)
			}
		}
	}
	return nil
}
