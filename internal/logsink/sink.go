package logsink

import (
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

const (
	defaultQueue        = 1024
	defaultCloseTimeout = 2 * time.Second

	// maxLine is the size up to which the buffer of a line is used again, so
	// that one stack trace does not stay in memory for ever.
	maxLine = 4096
)

var (
	errQueueFull  = errors.New("flush log: the queue is full: nobody reads the log, or not fast enough")
	errNotFlushed = errors.New("flush log: lines were left unwritten: the reader of the log blocks")
)

// Config of a logger and its [Sink].
type Config struct {
	// Level is "debug", "info", "warn" or "error"; empty means "info".
	Level string
	// Format is "json" or "console"; empty means "json".
	Format string
	// W gets the lines, one Write each. It may block.
	W io.Writer
	// Queue is how many lines may wait for the writer, 0 means 1024.
	Queue int
	// CloseTimeout is how long Close and Sync wait at most, 0 means 2 s.
	CloseTimeout time.Duration
}

// Sink is the zapcore.WriteSyncer behind a logger. It owns the goroutine that
// writes.
type Sink struct {
	w       io.Writer
	level   zap.AtomicLevel
	timeout time.Duration
	queue   *Queue[line]
	free    chan []byte
	dropped atomic.Uint64
}

// line is one encoded entry, or a mark: flushed is closed once all before it
// is written.
type line struct {
	text    []byte
	flushed chan<- struct{}
}

// New returns a logger that never waits for cfg.W, and its sink, which the
// caller closes after the last use of the logger.
func New(cfg Config) (*zap.Logger, *Sink, error) {
	if cfg.W == nil {
		return nil, nil, errors.New("new log: no writer given")
	}
	if cfg.Queue <= 0 {
		cfg.Queue = defaultQueue
	}
	if cfg.CloseTimeout <= 0 {
		cfg.CloseTimeout = defaultCloseTimeout
	}
	enc, err := newEncoder(cfg.Format)
	if err != nil {
		return nil, nil, err
	}
	s := &Sink{
		w:       cfg.W,
		level:   zap.NewAtomicLevel(),
		timeout: cfg.CloseTimeout,
		free:    make(chan []byte, cfg.Queue),
	}
	if err := s.SetLevel(cfg.Level); err != nil {
		return nil, nil, err
	}
	s.queue = NewQueue(cfg.Queue, s.write, s.discard)
	s.queue.Start()
	// zap reports its own trouble to stderr unless told otherwise.
	return zap.New(zapcore.NewCore(enc, s, s.level), zap.ErrorOutput(s)), s, nil
}

func newEncoder(format string) (zapcore.Encoder, error) {
	ec := zapcore.EncoderConfig{
		TimeKey:        "time",
		LevelKey:       "level",
		NameKey:        "logger",
		MessageKey:     "msg",
		StacktraceKey:  "stacktrace",
		EncodeTime:     zapcore.ISO8601TimeEncoder,
		EncodeLevel:    zapcore.LowercaseLevelEncoder,
		EncodeDuration: zapcore.StringDurationEncoder,
	}
	switch format {
	case "json", "":
		return zapcore.NewJSONEncoder(ec), nil
	case "console":
		return zapcore.NewConsoleEncoder(ec), nil
	default:
		return nil, fmt.Errorf("new log: unknown format %q, use \"json\" or \"console\"", format)
	}
}

// SetLevel changes the level while the logger is in use, as a reload does.
func (s *Sink) SetLevel(level string) error {
	switch level {
	case "debug":
		s.level.SetLevel(zapcore.DebugLevel)
	case "info", "":
		s.level.SetLevel(zapcore.InfoLevel)
	case "warn":
		s.level.SetLevel(zapcore.WarnLevel)
	case "error":
		s.level.SetLevel(zapcore.ErrorLevel)
	default:
		return fmt.Errorf("set log level: unknown level %q, use \"debug\", \"info\", \"warn\" or \"error\"", level)
	}
	return nil
}

// Level returns the level of the logger; changing it changes the logger.
func (s *Sink) Level() zap.AtomicLevel { return s.level }

// Dropped returns how many lines were lost, to a full queue or to a failing
// writer.
func (s *Sink) Dropped() uint64 { return s.dropped.Load() }

// Write queues a copy of p. It never blocks and always reports success: a
// logger can do nothing with the error that Dropped does not tell better.
func (s *Sink) Write(p []byte) (int, error) {
	var buf []byte
	select {
	case buf = <-s.free:
	default:
	}
	buf = append(buf[:0], p...)
	if !s.queue.Offer(line{text: buf}) {
		s.dropped.Add(1)
		s.recycle(buf)
	}
	return len(p), nil
}

// Sync waits until all that was logged before is written, for a bounded time.
// zap calls it before it ends the process for a fatal entry.
func (s *Sink) Sync() error {
	flushed := make(chan struct{})
	if !s.queue.Offer(line{flushed: flushed}) {
		return errQueueFull
	}
	timer := time.NewTimer(s.timeout)
	defer timer.Stop()
	select {
	case <-flushed:
		return nil
	case <-timer.C:
		return errNotFlushed
	}
}

// Close writes what is queued, for a bounded time, and ends the writer. What
// is logged later is dropped.
func (s *Sink) Close() error {
	if !s.queue.Close(s.timeout) {
		return errNotFlushed
	}
	return nil
}

// write is called from the goroutine of the queue.
func (s *Sink) write(l line) {
	if l.flushed != nil {
		close(l.flushed)
		return
	}
	if _, err := s.w.Write(l.text); err != nil {
		s.dropped.Add(1)
	}
	s.recycle(l.text)
}

func (s *Sink) discard(l line) {
	if l.flushed == nil {
		s.dropped.Add(1)
	}
}

func (s *Sink) recycle(buf []byte) {
	if cap(buf) > maxLine {
		return
	}
	select {
	case s.free <- buf:
	default:
	}
}
