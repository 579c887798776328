package accesslog

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"github.com/tproxyd/tproxyd/internal/logsink"
)

const (
	defaultBatch = 256
	defaultQueue = 64
	defaultDrain = 2 * time.Second

	// pipeBuf is PIPE_BUF on Linux: a write of up to this many bytes to a pipe
	// is atomic, pipe(7).
	pipeBuf = 4096
)

// Format is how a record is written.
type Format string

// The formats. Whether there is an access log at all is the caller's matter.
const (
	FormatJSON    Format = "json"
	FormatHAProxy Format = "haproxy"
)

// Config of a [Sink].
type Config struct {
	// W gets the lines. It may block.
	W io.Writer
	// Format of the lines; empty means FormatJSON.
	Format Format
	// Batch is the capacity of a batch in records, 0 means 256.
	Batch int
	// Queue is how many batches may wait for the writer, 0 means 64.
	Queue int
	// DrainTimeout is how long Run goes on writing what is queued after its
	// context ended, 0 means 2 s.
	DrainTimeout time.Duration
	// OnError, if set, is called from the writer goroutine with the first
	// error of W, and again with the first one after a write that succeeded.
	OnError func(error)
}

// Sink carries batches of records from workers to an io.Writer.
type Sink struct {
	cfg    Config
	format func([]byte, *Record) []byte
	queue  *logsink.Queue[[]Record]
	free   chan []Record

	written, dropped atomic.Uint64

	// Of the writer goroutine alone.
	buf     []byte
	failing bool
}

// New returns a sink. It accepts batches at once and writes them while
// [Sink.Run] runs.
func New(cfg Config) (*Sink, error) {
	if cfg.W == nil {
		return nil, errors.New("new access log: no writer given")
	}
	if cfg.Batch <= 0 {
		cfg.Batch = defaultBatch
	}
	if cfg.Queue <= 0 {
		cfg.Queue = defaultQueue
	}
	if cfg.DrainTimeout <= 0 {
		cfg.DrainTimeout = defaultDrain
	}
	s := &Sink{
		cfg:  cfg,
		free: make(chan []Record, cfg.Queue),
		buf:  make([]byte, 0, 2*pipeBuf),
	}
	switch cfg.Format {
	case FormatJSON, "":
		s.format = AppendJSON
	case FormatHAProxy:
		s.format = AppendHAProxy
	default:
		return nil, fmt.Errorf("new access log: unknown format %q, use %q or %q", cfg.Format, FormatJSON, FormatHAProxy)
	}
	s.queue = logsink.NewQueue(cfg.Queue, s.write, s.drop)
	return s, nil
}

// Get returns an empty batch. It never blocks.
func (s *Sink) Get() []Record {
	select {
	case b := <-s.free:
		return b
	default:
		return make([]Record, 0, s.cfg.Batch)
	}
}

// Offer hands over a batch and never blocks. If it returns true the batch is
// the sink's, and the caller goes on with another one from [Sink.Get]. If it
// returns false the queue is full or closed, the records have been counted as
// dropped, and the slice is still the caller's, to be used again from the
// start.
func (s *Sink) Offer(batch []Record) (accepted bool) {
	if s.queue.Offer(batch) {
		return true
	}
	s.drop(batch)
	return false
}

// Written returns how many records the writer has taken.
func (s *Sink) Written() uint64 { return s.written.Load() }

// Dropped returns how many records were lost, to a full queue or to a failing
// writer.
func (s *Sink) Dropped() uint64 { return s.dropped.Load() }

// Run writes batches until ctx ends, then what is queued, for at most
// DrainTimeout. What is left then counts as dropped. It is called once, and
// returns nil.
func (s *Sink) Run(ctx context.Context) error {
	s.queue.Start()
	<-ctx.Done()
	s.queue.Close(s.cfg.DrainTimeout)
	return nil
}

// drop counts a batch that will not be written.
func (s *Sink) drop(batch []Record) { s.dropped.Add(uint64(len(batch))) }

// write writes a batch, in pieces of whole lines of at most pipeBuf bytes, and
// gives the batch back to the workers.
func (s *Sink) write(batch []Record) {
	buf, lines := s.buf[:0], uint64(0)
	for i := range batch {
		end := len(buf)
		buf = append(s.format(buf, &batch[i]), '\n')
		if len(buf) > pipeBuf && end > 0 {
			s.emit(buf[:end], lines)
			buf, lines = append(buf[:0], buf[end:]...), 0
		}
		lines++
	}
	if lines > 0 {
		s.emit(buf, lines)
	}
	s.buf = buf
	select {
	case s.free <- batch[:0]:
	default:
	}
}

func (s *Sink) emit(p []byte, lines uint64) {
	_, err := s.cfg.W.Write(p)
	if err == nil {
		s.written.Add(lines)
		s.failing = false
		return
	}
	s.dropped.Add(lines)
	if !s.failing && s.cfg.OnError != nil {
		s.cfg.OnError(fmt.Errorf("write access log: %w; records are dropped until it can be written again", err))
	}
	s.failing = true
}
