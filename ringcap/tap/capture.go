package tap

import (
	"context"
	"fmt"
	"os"
	"time"

	"go.uber.org/zap"

	"github.com/tproxyd/tproxyd/ringcap/files"
	"github.com/tproxyd/tproxyd/ringcap/pcapng"
)

// stopGrace is how long the rest of a capture may take to be written. A disk
// that stays full must not keep a daemon from ending.
const stopGrace = 2 * time.Second

// capture is a Capture that runs.
type capture struct {
	Capture
	sink  *sink
	files *files.Writer
	rings *rings
	log   *zap.Logger

	done   chan struct{}
	cancel context.CancelFunc

	begun      bool // something is in the file
	told, said loss // by the files before, and by the last trailer
}

// loss is what a sink has lost.
type loss struct{ packets, blocks uint64 }

// prepare makes the directory of a capture, and sees whether it can be written.
func prepare(dir string) error {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return fmt.Errorf("make directory of capture: %w", err)
	}
	f, err := os.CreateTemp(dir, ".tproxyd-*")
	if err != nil {
		return fmt.Errorf("write to directory of capture: %w", err)
	}
	_ = f.Close() // it is empty
	if err := os.Remove(f.Name()); err != nil {
		return fmt.Errorf("write to directory of capture: %w", err)
	}
	return nil
}

func newCapture(c Capture, d *directory, r *rings, log *zap.Logger) (*capture, error) {
	sel, err := newSelector(c.Selection)
	if err != nil {
		return nil, fmt.Errorf("check capture %s: %w", c.Name, err)
	}
	if err := prepare(c.Directory); err != nil {
		return nil, fmt.Errorf("check capture %s: %w", c.Name, err)
	}
	x := &capture{Capture: c, rings: r, log: log, sink: newSink(c.Name, sel, c.Wire, d), done: make(chan struct{})}
	if err := x.filesConfig().Check(); err != nil {
		return nil, fmt.Errorf("check capture %s: %w", c.Name, err)
	}
	return x, nil
}

func (c *capture) filesConfig() files.Config {
	return files.Config{
		Dir: c.Directory, Prefix: c.Name, Header: c.header, Trailer: c.trailer,
		MaxBytes: c.MaxBytes, MaxPackets: c.MaxPackets, MaxDuration: c.MaxDuration,
		KeepFiles: c.KeepFiles, KeepBytes: c.KeepBytes, Compress: c.Compress, Recycle: c.Recycle,
	}
}

// start opens the files, which removes what another capture of that name has
// not finished, and runs. The sink may have a queue by then.
func (c *capture) start() (err error) {
	if c.files, err = files.New(c.filesConfig()); err != nil {
		c.sink.abandon()
		close(c.done)
		return fmt.Errorf("start capture %s: %w", c.Name, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	c.cancel = cancel
	go c.run(ctx)
	return nil
}

// stop writes what is queued and completes the file. The sink must not be in
// the list any more.
func (c *capture) stop() {
	c.sink.close()
	if c.cancel != nil {
		t := time.AfterFunc(stopGrace, c.cancel)
		defer t.Stop()
		defer c.cancel()
	}
	<-c.done
}

func (c *capture) run(ctx context.Context) {
	defer close(c.done)
	var tick <-chan time.Time
	if c.MaxDuration > 0 {
		t := time.NewTicker(min(max(c.MaxDuration/8, time.Millisecond), time.Second))
		defer t.Stop()
		tick = t.C
	}
	for {
		it, ok := c.sink.take(ctx, tick)
		if !ok {
			break
		}
		if err := c.write(ctx, it); err != nil {
			break // ctx has ended
		}
	}
	c.sink.abandon()
	if err := c.files.Close(ctx); err != nil {
		c.log.Error("completing a capture", zap.String("capture", c.Name), zap.Error(err))
	}
}

func (c *capture) write(ctx context.Context, it item) error {
	switch {
	case it.event != nil:
		return c.event(ctx, it.event)
	case it.batch == nil:
		return c.files.Expire(ctx)
	}
	number := int(it.batch.from.number)
	run, n := c.sink.encode(it.batch)
	it.batch.release()
	if n == 0 {
		return nil
	}
	if c.begun && number >= c.sink.described {
		// The file does not have this interface.
		if err := c.files.Rotate(ctx); err != nil {
			return err
		}
	}
	if err := c.files.Write(ctx, run, n); err != nil {
		c.sink.dropped.Add(uint64(n))
		return err
	}
	c.begun = true
	c.sink.packets.Add(uint64(n))
	c.sink.bytes.Add(uint64(len(run)))
	return nil
}

func (c *capture) event(ctx context.Context, e *Event) error {
	if err := c.files.Write(ctx, c.sink.event(e), 1); err != nil {
		return err
	}
	c.begun = true
	c.sink.events.Add(1)
	return nil
}

func (c *capture) header(dst []byte) []byte {
	if c.begun { // the run that is being written is still of the first file
		c.sink.forget()
		c.begun, c.told = false, c.said
	}
	dst, c.sink.described = c.sink.dir.header(dst, c.sink.sel)
	return dst
}

func (c *capture) trailer(dst []byte, f files.File) []byte {
	base := pcapng.Statistics{Start: f.Start, Stop: f.End}
	add := func(format string, args ...any) {
		if base.Comment != "" {
			base.Comment += "; "
		}
		base.Comment += fmt.Sprintf(format, args...)
	}
	t := c.rings.totals()
	if drops := t.drops - c.sink.ringBase.drops; drops > 0 {
		add("rings froze %d times, %d packets dropped", t.freezes-c.sink.ringBase.freezes, drops)
	}
	c.said = loss{c.sink.dropped.Load(), c.sink.droppedBlocks.Load()}
	if c.said.packets > c.told.packets {
		add("%d packets in %d blocks lost, as writing was too slow", c.said.packets-c.told.packets, c.said.blocks-c.told.blocks)
	}
	if f.LastError != nil {
		add("writing failed %d times for %v: %v", f.Errors, f.Stalled.Round(time.Millisecond), f.LastError)
	}
	return c.rings.trailer(dst, c.sink.dir, c.sink.described, base, false)
}

func (c *capture) status() CaptureStatus {
	s := CaptureStatus{Capture: c.Capture, Running: true, CaptureStats: c.sink.stats()}
	f := c.files.Stats()
	s.Files, s.Events, s.LastError = f.Files, c.sink.events.Load(), f.LastError
	return s
}
