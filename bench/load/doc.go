// Package load is the load generator and the backend of the benchmarks: two
// single-threaded epoll loops, so that they cost little and cost the same
// whatever proxy stands between them.
//
// Both are driven over their standard input, one command a line, and answer
// with one JSON object a line on their standard output:
//
//	begin   (client) start a new latency histogram, then as stat
//	stat    counters since the start
//	stop    (client) finish every flow, check its totals, report and return
//
// The end of the standard input ends either of them, so that neither outlives
// the process that started it.
//
// # What is verified
//
// An exchange is a request of RequestSize bytes that carries an id and a
// response of ResponseSize bytes that must repeat it byte for byte; a response
// that belongs to another flow is an error. A stream is a position-dependent
// pattern: every thirty-second read is compared with it, the others are counted
// and dropped in the kernel (MSG_TRUNC, tcp(7)). At the end the receiver's byte
// count is sent back over the flow itself and compared with the sender's.
// The backend compares the peer address of every connection with the addresses
// that the clients use and counts those that are not theirs.
package load
