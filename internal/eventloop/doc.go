// Package eventloop runs one thread's epoll, mailbox and timers. It knows
// nothing of proxying.
//
// Invariants:
//   - A Loop belongs to the goroutine in Run, which is locked to its thread.
//     Only Post and Stop may be called from elsewhere.
//   - Descriptors are registered once. A Tag with a generation comes back with
//     each event, so that an event for a descriptor closed earlier in the same
//     batch is recognised by its owner and dropped.
//   - The clock is read once per batch; it is monotonic.
//   - The loop asks epoll without waiting first. Only when there is nothing to
//     do does it make the call that may sleep, and tells the Go scheduler; a
//     raw call that sleeps would stop the garbage collector.
//
// References: epoll(7), eventfd(2).
package eventloop
