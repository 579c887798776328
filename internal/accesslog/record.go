package accesslog

import (
	"net/netip"
	"time"
)

// Record describes one flow that has ended.
type Record struct {
	// Time is when the flow was accepted, or its first datagram came.
	Time time.Time
	// FlowID identifies the flow in every log; written as 16 hex digits.
	FlowID uint64

	// Service is the name of the service, Protocol "tcp" or "udp".
	Service, Protocol string

	// Client is who connected and Destination what it connected to. Backend is
	// where the upstream leg went and UpstreamSource what the backend saw as
	// source. The zero value means none and is written as "".
	Client, Destination, Backend, UpstreamSource netip.AddrPort

	// BackendName is the configured name of the backend, "" if it has none.
	BackendName string
	// SourcePolicy is "client", "client-ip", "prefer-client" or "host".
	SourcePolicy string

	// BytesIn went from the client to the upstream, BytesOut the other way.
	BytesIn, BytesOut uint64
	// DatagramsIn and DatagramsOut are what these bytes came in. Only records
	// of udp, in JSON, have them.
	DatagramsIn, DatagramsOut uint64

	// Queue is the wait before the first connect, Connect the time until the
	// upstream leg stood, with retries, Duration the life of the flow. A
	// negative value means that it never came to that, and is written as -1.
	Queue, Connect, Duration time.Duration

	// PathIn and PathOut tell how a direction was carried: "copy", "splice",
	// "none".
	PathIn, PathOut string

	// Retries counts the connects after the first.
	Retries int

	// ClientRTT and UpstreamRTT are the smoothed round-trip times of the legs at
	// the end of the flow, ClientRetrans and UpstreamRetrans the segments that
	// were sent again on them; -1 means unknown. LimitedBy is what kept the flow
	// from going faster: "client", "upstream", "proxy", "network", or "" if it
	// carried nothing. Only records of tcp, in JSON, have them.
	ClientRTT, UpstreamRTT         time.Duration
	ClientRetrans, UpstreamRetrans int
	LimitedBy                      string

	// Tapped says that a tap has looked at the flow, TapClient and TapUpstream
	// which part of the bytes that the flow carried it saw on either leg: 1 is all
	// of them. Only records in JSON have them, and only if Tapped.
	Tapped                 bool
	TapClient, TapUpstream float64

	// Reason is why the flow ended, Term HAProxy's two letters for the same.
	Reason, Term string

	// ActConn, FeConn, BeConn and SrvConn are the connections open in the
	// process, the service, its pool and to the backend when the flow ended.
	// Only the HAProxy format has room for them.
	ActConn, FeConn, BeConn, SrvConn uint32
}
