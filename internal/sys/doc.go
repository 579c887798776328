// Package sys holds the kernel calls of the data path: sockets, splice and
// pipes, descriptor limits and capabilities.
//
// The calls in calls_unsafe.go never sleep (every descriptor is non-blocking),
// so they use the raw system call and do not tell the Go scheduler. They
// return the errno itself, because on a data path EAGAIN is an answer and not
// an error, and building an error value would allocate.
//
// References: ip(7) for IP_TRANSPARENT and IP_BIND_ADDRESS_NO_PORT, tcp(7),
// splice(2), pipe(7), capabilities(7).
package sys
