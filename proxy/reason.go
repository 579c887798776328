package proxy

// Reason is why a flow ended: a log field and a metric label.
type Reason uint8

// The reasons. Those from ConnectRefused on end a flow before it had an
// upstream; those from SourceConflict on refuse it for a cause of ours.
const (
	ClientClose        Reason = iota // both sides closed, the client first
	UpstreamClose                    // both sides closed, the upstream first
	ClientReset                      // RST from the client
	UpstreamReset                    // RST from the upstream
	ClientLost                       // the client no longer answers
	UpstreamLost                     // the upstream no longer answers
	IdleTimeout                      // idle_timeout
	HalfCloseTimeout                 // half_close_timeout
	LifetimeEnd                      // max_lifetime
	Drained                          // cut at the end of drain_timeout, or by a second signal
	Answered                         // UDP: all replies that responses asks for have come
	Unreplied                        // UDP: no reply within unreplied_timeout
	PortUnreachable                  // UDP: ICMP port unreachable from the upstream
	Evicted                          // UDP: it made room for a newer flow
	BackendDown                      // on_backend_down = "cut", and the backend went down
	Killed                           // cut by the API
	ClientAbort                      // the client went away before the upstream was connected
	ConnectRefused                   // RST in answer to SYN
	ConnectTimeout                   // connect_timeout
	ConnectUnreachable               // ICMP unreachable, or no route
	ConnectFailed                    // any other error of connect
	SourceConflict                   // the 4-tuple is in use
	SourceDenied                     // the kernel refuses the source address
	PortsExhausted                   // no free port for the source address
	NoBackend                        // no backend of the client's address family, or none that may take flows
	NoRoute                          // no route matches, and there is no default pool
	QueueFull                        // all backends are full, and so is the queue
	QueueTimeout                     // queue_timeout
	GreetingTimeout                  // no whole PROXY header or ClientHello in time
	ProxyHeaderRefused               // the PROXY header is missing, wrong, or from somebody who may not send one
	ClientHelloRefused               // the ClientHello is not legal, or too long
	Denied                           // by the lists of prefixes
	ClientLimit                      // max_connections_per_client
	ClientRate                       // rate_per_client
	Loop                             // the destination is the proxy itself
	ResourcesExhausted               // no descriptor or no memory for the upstream socket
	reasonCount
)

// reasonText holds a reason's name and HAProxy's two letters for it (HAProxy
// configuration manual, section 8.5).
var reasonText = [reasonCount]struct{ name, term string }{
	ClientClose:        {"client_close", "--"},
	UpstreamClose:      {"upstream_close", "--"},
	ClientReset:        {"client_reset", "CD"},
	UpstreamReset:      {"upstream_reset", "SD"},
	ClientLost:         {"client_lost", "cD"},
	UpstreamLost:       {"upstream_lost", "sD"},
	IdleTimeout:        {"idle_timeout", "cD"},
	HalfCloseTimeout:   {"half_close_timeout", "cD"},
	LifetimeEnd:        {"max_lifetime", "KD"},
	Drained:            {"drain", "KD"},
	Answered:           {"answered", "--"},
	Unreplied:          {"unreplied_timeout", "sD"},
	PortUnreachable:    {"port_unreachable", "SD"},
	Evicted:            {"evicted", "RD"},
	BackendDown:        {"backend_down", "DD"},
	Killed:             {"killed", "KD"},
	ClientAbort:        {"client_abort", "CC"},
	ConnectRefused:     {"connect_refused", "SC"},
	ConnectTimeout:     {"connect_timeout", "sC"},
	ConnectUnreachable: {"connect_unreachable", "SC"},
	ConnectFailed:      {"connect_failed", "SC"},
	SourceConflict:     {"source_conflict", "RC"},
	SourceDenied:       {"source_denied", "RC"},
	PortsExhausted:     {"ports_exhausted", "RC"},
	NoBackend:          {"no_backend", "SC"},
	NoRoute:            {"no_route", "SC"},
	QueueFull:          {"queue_full", "SQ"},
	QueueTimeout:       {"queue_timeout", "sQ"},
	GreetingTimeout:    {"greeting_timeout", "cR"},
	ProxyHeaderRefused: {"proxy_header", "PR"},
	ClientHelloRefused: {"client_hello", "PR"},
	Denied:             {"denied", "PR"},
	ClientLimit:        {"client_limit", "PR"},
	ClientRate:         {"client_rate", "PR"},
	Loop:               {"loop", "PR"},
	ResourcesExhausted: {"resources_exhausted", "RC"},
}

func (r Reason) String() string { return reasonText[r].name }

// Term is the reason in HAProxy's two letters.
func (r Reason) Term() string { return reasonText[r].term }

// Rejected reports whether the flow was refused for a cause on our side.
func (r Reason) Rejected() bool { return r >= SourceConflict && r < reasonCount }
