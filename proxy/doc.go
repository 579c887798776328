// Package proxy is the data plane: services, workers and TCP flows.
//
// A Proxy has one worker per CPU. A worker is a locked thread with its own
// event loop, its own SO_REUSEPORT listeners, its own flows, timers, pipes and
// counters; nothing on the data path is shared, so nothing there is locked. A
// flow is a plain struct with a state machine and no goroutine.
//
//	accept -> choose -> bind as the client -> connect -> relay -> close
//	(accept.go)         (connect.go)                    (relay.go) (close.go)
//
// Invariants:
//   - Every accepted flow ends exactly once, in worker.end, with one Reason.
//   - A flow owns at most two descriptors while idle; pipes and buffers are
//     lent by the worker only while bytes are in flight.
//   - Bytes are passed on in order; a FIN is passed on behind the last byte of
//     its direction, and a RST as RST behind the bytes that came before it.
//   - A cut flow ends in RST on both legs: an end that the peers did not make
//     must not look like the end of the data.
//   - A worker never waits: not for a disk, a lock held by the control plane,
//     a log, or a name.
//
// References: RFC 9293 (TCP), ip(7) and Documentation/networking/tproxy.rst
// (transparent sockets), splice(2), epoll(7).
package proxy
