// Package e2e has programs that are not ours talk to each other through the
// daemon as it is shipped: curl with nginx, iperf3, wrk, redis, OpenSSH,
// PostgreSQL, socat, and over UDP DNS clients with Knot, SIP phones and QUIC.
// Each runs in a lab of network namespaces, in both modes and both families,
// with a configuration of its own in a temporary directory.
//
// There is nothing in it to import.
package e2e
