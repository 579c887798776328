package proxy

import (
	"net/netip"
	"time"

	"github.com/tproxyd/tproxyd/internal/admission"
	"github.com/tproxyd/tproxyd/internal/balance"
	"github.com/tproxyd/tproxyd/internal/health"
)

// Protocol is the transport protocol of a service.
type Protocol uint8

// The protocols.
const (
	TCP Protocol = iota
	UDP
)

func (p Protocol) String() string {
	if p == UDP {
		return "udp"
	}
	return "tcp"
}

// Mode says where the upstream of a service's flows comes from.
type Mode uint8

// The modes.
const (
	VIP       Mode = iota // the listen address is a virtual IP: flows are balanced over the backends
	Intercept             // flows come by a TPROXY rule: upstream is their original destination, or a backend if there are any
)

func (m Mode) String() string {
	if m == Intercept {
		return "intercept"
	}
	return "vip"
}

// Source says which source address the backend sees.
type Source uint8

// The source policies.
const (
	Client       Source = iota // the client's ip and port; a conflict ends the flow
	ClientIP                   // the client's ip, any port
	PreferClient               // the client's ip and port; on a conflict any port
	Host                       // the proxy's own address
)

func (s Source) String() string {
	return [...]string{"client", "client-ip", "prefer-client", "host"}[s]
}

// Config is what the data plane runs. It is not changed after it was given to
// Apply.
type Config struct {
	// MaxConnections bounds the flows of the process; 0 is what the
	// descriptor limit allows.
	MaxConnections int
	// MaxFlows bounds the UDP flows of the process; 0 is what the descriptor
	// limit allows.
	MaxFlows int
	// DrainTimeout is how long flows of a removed service, and of a proxy that
	// shuts down, may go on.
	DrainTimeout time.Duration
	// Mark is the SO_MARK of upstream sockets of intercept services, by which
	// an output rule leaves them alone; 0 sets none.
	Mark uint32
	// Records asks for a record of each ended flow.
	Records  bool
	Services []Service
}

// Service is one [[service]] of the configuration.
type Service struct {
	Name        string
	Protocol    Protocol
	Mode        Mode
	Listen      []netip.AddrPort
	Source      Source
	IdleTimeout time.Duration // nothing in either direction; 0: none
	MaxLifetime time.Duration // 0: none

	// Backends are those of all pools. Without any, flows of an intercept
	// service go to their original destination, unless it is Discovered.
	Backends   []Backend
	Discovered bool          // some of its backends come by name: there may be none just now
	Default    bool          // with Routes: flows that none of them matches have a pool
	Routes     []Route       // TCP
	Health     health.Policy // when backends are in use
	CutOnDown  bool          // flows of a backend that goes down are cut
	Balance    balance.Algorithm
	Hash       balance.Hash // of Maglev
	TableSize  int          // of Maglev; 0: balance.DefaultTableSize
	Seed       uint64       // of Maglev and SourceHash; the same on nodes that are to choose alike

	Admission   *admission.Config // who may open flows; nil: everybody
	AcceptProxy ProxyProtocol
	ProxyFrom   []netip.Prefix // who may send PROXY headers; with ProxyRequire, none: everybody
	Shadow      *Shadow        // nil: none
	SendProxy   int            // version of the PROXY header that backends get; 0: none

	// Of TCP services.
	ConnectTimeout   time.Duration // for one try; must be positive
	HalfCloseTimeout time.Duration // idle time once one side has sent FIN; 0: none
	Keepalive        time.Duration // TCP_KEEPIDLE on both legs; 0: none
	UserTimeout      time.Duration // TCP_USER_TIMEOUT on both legs; 0: the kernel's
	Retries          int           // further backends tried after a connect failure
	MaxConnections   int           // 0: no limit of its own
	QueueSize        int           // flows that may wait for backends that are full
	QueueTimeout     time.Duration // and how long
	ProxyTimeout     time.Duration // for a PROXY header to arrive
	HelloTimeout     time.Duration // for a ClientHello to arrive, if there are Routes
	HelloMax         int           // bytes of a ClientHello, at most MaxHello

	// Of UDP services.
	UnrepliedTimeout time.Duration // idle time until the first reply; 0: IdleTimeout
	MaxFlows         int           // 0: no limit of its own
	Responses        int           // replies to each datagram of the client, after which the flow ends; 0: any number
	Requests         int           // datagrams of the client, after which its next one begins a new flow; 0: any number
}

// ProxyProtocol says whether clients send PROXY headers.
type ProxyProtocol uint8

// The uses of PROXY headers.
const (
	ProxyOff        ProxyProtocol = iota
	ProxyRequire                  // all clients send one
	ProxyAcceptFrom               // those of Service.ProxyFrom do
)

// Route is a pool for flows whose TLS ClientHello matches.
type Route struct {
	Name      string // unique within the service
	SNI, ALPN []string
}

// Backend is one server of a service.
type Backend struct {
	Name   string // unique within the service; the metrics label
	Addr   netip.AddrPort
	Weight int  // 0 to balance.MaxWeight; 0: no new flows
	Backup bool // chosen only when no other backend of its pool is left
	Limit  int  // flows at a time; 0: any number
	Route  int  // 0: of the default pool; else 1 + index in Service.Routes
}
