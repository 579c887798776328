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
// Datagrams have a client and a backend of their own, with these commands:
//
//	start EPOCH RATE   (client) begin a run of so many datagrams a second
//	start EPOCH DELAY  (backend) count anew; answer after so many nanoseconds
//	stat               counters since start
//	stop               (client) send no more, then as stat
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
//
// A datagram carries its flow, its number in it, and the port it was sent from;
// the rest is the pattern, and compared to the last byte. The receiver keeps a bit
// for each number of each flow, so that loss, repetition and another order are
// known exactly: lost is what was sent and not counted. Pacing never makes up for
// more than 5 ms, so that a client that was held up does not flood the proxy.
//
// The backend compares the peer address of every connection with the addresses
// that the clients use and counts those that are not theirs; of datagrams, the
// port too.
package load
