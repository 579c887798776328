// Package accesslog turns ended flows into one line each and gets the lines
// out without ever making the data plane wait.
//
// A worker collects [Record] values in a batch that it got from [Sink.Get] and
// hands the batch over with [Sink.Offer]. Between the two stands a bounded
// queue. If it is full, because whatever reads the log does not keep up, the
// batch is refused and its records are counted in [Sink.Dropped]: what is lost
// is known, and no flow has waited for it.
//
// Invariants:
//   - Offer and Get never block and never make a system call.
//   - Memory is bounded by Config.Queue batches of Config.Batch records.
//   - Only the writer goroutine of [Sink.Run] touches the io.Writer; one that
//     blocks for ever blocks that goroutine and nothing else.
//   - Records offered = Written + Dropped, once Run has returned and no write
//     hangs.
//   - A write is at most PIPE_BUF bytes unless a single line is longer, and
//     ends with a line: pipe(7) then keeps the lines of several writers whole.
//
// Two formats exist: JSON, one object a line, and the line of HAProxy's
// "option tcplog" (HAProxy configuration manual, section 8.2.2), for tools
// that already read it.
package accesslog
