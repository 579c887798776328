package files

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"

	"github.com/klauspost/compress/zstd"
)

// backlog is how many files may wait for compression. Beyond it they stay as
// they are: rotation never waits.
const backlog = 64

type compressor struct {
	paths  chan string
	failed func()
	done   func()
	wg     sync.WaitGroup
}

func newCompressor(failed, done func()) *compressor {
	c := &compressor{paths: make(chan string, backlog), failed: failed, done: done}
	c.wg.Go(c.run)
	return c
}

func (c *compressor) add(path string) {
	select {
	case c.paths <- path:
	default:
		c.failed()
	}
}

func (c *compressor) close() {
	close(c.paths)
	c.wg.Wait()
}

func (c *compressor) run() {
	for path := range c.paths {
		// A file may have been deleted as too old while it waited.
		if err := compress(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			c.failed()
		}
		c.done()
	}
}

// compress puts path.zst in the place of path. If that fails path stays.
func compress(path string) error {
	in, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("compress capture file: %w", err)
	}
	defer func() { _ = in.Close() }() // only read
	temporary := path + compressed + unfinished
	out, err := os.OpenFile(temporary, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o640)
	if err != nil {
		return fmt.Errorf("compress capture file: %w", err)
	}
	if err := errors.Join(encode(out, in), out.Close()); err != nil {
		return errors.Join(fmt.Errorf("compress capture file: %w", err), os.Remove(temporary))
	}
	return errors.Join(os.Rename(temporary, path+compressed), os.Remove(path))
}

func encode(out io.Writer, in io.Reader) error {
	enc, err := zstd.NewWriter(out, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedFastest))
	if err != nil {
		return err
	}
	_, err = io.Copy(enc, in)
	return errors.Join(err, enc.Close())
}
