// Package logsink carries log output away from goroutines that must not wait.
//
// A write to stderr blocks when nobody reads the other end: a full pipe, a
// stopped terminal, a journal that is being restarted. [New] gives a zap
// logger whose lines are copied into a bounded queue and written by one
// goroutine. What does not fit is dropped and counted.
//
// [Queue] is that hand-over by itself; package accesslog uses it for batches
// of records.
//
// Invariants:
//   - Nothing but the goroutine of the queue touches the io.Writer.
//   - Logging never waits for the writer. Closing waits for a bounded time and
//     then leaves a hanging write behind.
//   - A reader that went away (EPIPE) costs lines, not the process. Go ends a
//     program on EPIPE from file descriptor 1 or 2 unless SIGPIPE is ignored
//     (os/signal, "SIGPIPE"): starting a queue ignores it, for the process.
package logsink
