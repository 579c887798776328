package logsink

import (
	"os/signal"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Queue hands values from goroutines that must not wait to one goroutine that
// may.
type Queue[T any] struct {
	handle  func(T)
	discard func(T)
	items   chan T

	// mu makes closing items and sending to it exclude each other. Nobody
	// waits while holding it.
	mu     sync.RWMutex
	closed bool

	givenUp atomic.Bool
	done    chan struct{}
}

// NewQueue returns a queue for depth values. A value that was accepted goes to
// handle, which may block, or, if the queue was closed and its time ran out,
// to discard, which must not.
func NewQueue[T any](depth int, handle, discard func(T)) *Queue[T] {
	return &Queue[T]{
		handle:  handle,
		discard: discard,
		items:   make(chan T, depth),
		done:    make(chan struct{}),
	}
}

// Offer hands v over. It never blocks; false means that the queue is full or
// closed and v still belongs to the caller.
func (q *Queue[T]) Offer(v T) bool {
	q.mu.RLock()
	defer q.mu.RUnlock()
	if q.closed {
		return false
	}
	select {
	case q.items <- v:
		return true
	default:
		return false
	}
}

// Start starts the goroutine that handles the values; call it once. [Queue.Close]
// ends it.
func (q *Queue[T]) Start() {
	// For good: a write that Close leaves behind may still meet EPIPE, and
	// must not turn a clean exit into a death by signal.
	signal.Ignore(syscall.SIGPIPE)
	go q.run()
}

func (q *Queue[T]) run() {
	defer close(q.done)
	for v := range q.items {
		if q.givenUp.Load() {
			q.discard(v)
			continue
		}
		q.handle(v)
	}
}

// Close refuses further values and waits until the accepted ones are handled,
// at most timeout. After that it discards what is left and returns false; the
// goroutine ends when the call of handle that hangs returns.
func (q *Queue[T]) Close(timeout time.Duration) bool {
	q.mu.Lock()
	if !q.closed {
		q.closed = true
		close(q.items)
	}
	q.mu.Unlock()

	timer := time.NewTimer(timeout)
	defer timer.Stop()
	select {
	case <-q.done:
		return true
	case <-timer.C:
	}
	q.givenUp.Store(true)
	for v := range q.items {
		q.discard(v)
	}
	return false
}
