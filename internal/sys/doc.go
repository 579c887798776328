// Package sys holds the kernel calls of the data path: sockets, datagrams,
// splice and pipes, descriptor limits and capabilities.
//
// The calls in calls_unsafe.go and datagrams_unsafe.go never sleep (every
// descriptor is non-blocking), so they use the raw system call and do not tell
// the Go scheduler. They return the errno itself, because on a data path EAGAIN
// is an answer and not an error, and building an error value would allocate.
//
// For UDP, a [Receiver] takes many datagrams in a call and a [Sender] sends
// many, with runs of one size as single messages (UDP_GRO, UDP_SEGMENT). What
// a socket of the kernel's cannot send, an ICMP error or a datagram from
// another socket's address, leaves by [ICMP] and [RawUDP].
//
// References: ip(7) for IP_TRANSPARENT, IP_BIND_ADDRESS_NO_PORT, IP_RECVERR and
// IP_MTU_DISCOVER, tcp(7), udp(7), raw(7), cmsg(3), recvmmsg(2), splice(2),
// pipe(7), capabilities(7).
package sys
