// Package proxy is the data plane: services, workers, TCP and UDP flows.
//
// A Proxy has one worker per CPU. A worker is a locked thread with its own
// event loop, its own SO_REUSEPORT listeners, its own flows, timers, pipes and
// counters; nothing on the data path is shared, so nothing there is locked. A
// flow is a plain struct with a state machine and no goroutine.
//
//	accept -> choose -> bind as the client -> connect -> relay -> close
//	(accept.go)         (connect.go)                    (relay.go) (close.go)
//
// UDP has the same shape in files that begin with udp_; a udpFlow is found by
// its client and destination:
//
//	receive -> find or open -> outbox -> send   and back: receive -> outbox -> send
//	(udp_worker.go) (udp_open.go) (udp_outbox.go)         (udp_relay.go)
//	                 (udp_dial.go)
//
// A Tap is told of flows while they live, and before anything of them leaves
// towards their upstream (tap.go; tap_tcp.go, udp_tap.go).
//
// Both kinds may have copies that go to a shadow, in files that begin with
// shadow.
//
// Invariants:
//   - Every accepted flow ends exactly once, in worker.end or udpWorker.end,
//     with one Reason. A Tap is told of the end of what it was told of, once.
//   - A flow owns at most two descriptors while idle; pipes and buffers are
//     lent by the worker only while bytes are in flight.
//   - Bytes are passed on in order; a FIN is passed on behind the last byte of
//     its direction, and a RST as RST behind the bytes that came before it.
//   - A shadow gets a beginning of what its flow carries, without a hole, and
//     whatever it does the flow goes on.
//   - A cut flow ends in RST on both legs: an end that the peers did not make
//     must not look like the end of the data.
//   - Datagrams keep their boundaries, and their order within a flow but for
//     those that come while its own client socket is made.
//   - No two upstream sockets of UDP flows have the same 4-tuple: the kernel
//     would not mind, and give the replies to the newer one.
//   - A worker never waits: not for a disk, a lock held by the control plane,
//     a log, or a name.
//
// References: RFC 9293 (TCP), RFC 768 (UDP), RFC 1191 and 8201 (path MTU), ip(7) and Documentation/networking/tproxy.rst
// (transparent sockets), splice(2), epoll(7).
package proxy
