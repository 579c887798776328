package config

import (
	"io/fs"
	"net/netip"
	"time"
)

// Config is a whole configuration: valid, with every default filled in. It is
// shared between goroutines and must not be changed.
type Config struct {
	Daemon   Daemon
	Log      Log
	Admin    Admin
	Resolver Resolver
	Tap      *Tap // nil: no tap
	Services []Service
	Mirrors  []Mirror
	// Warnings are mistakes that leave the configuration usable, one line each
	// in the form of an error. WriteTOML and MarshalJSON leave them out.
	Warnings []string
}

// Daemon holds the settings of the process.
type Daemon struct {
	Workers        int           // 0: one per CPU
	MaxConnections int           // of TCP, 0: what the descriptor limit allows
	MaxFlows       int           // of UDP, 0: what the descriptor limit allows
	DrainTimeout   time.Duration // 0: cut flows at once
	Mark           uint32        // SO_MARK of upstream sockets of intercept services, 0: none
}

// Log holds the settings of the log and of the access records.
type Log struct {
	Level  string // debug, info, warn or error
	Format Format
	Access Access
}

// Admin holds the settings of the admin listeners.
type Admin struct {
	Listen     netip.AddrPort // the zero value switches it off
	Write      bool           // whether the API may change things over Listen; false without it
	Socket     string         // absolute path of a Unix socket whose API may always change things, "" for none
	SocketMode fs.FileMode    // permission bits of Socket
}

// Resolver holds how the names of backends are looked up.
type Resolver struct {
	Servers     []netip.AddrPort // nil: those of /etc/resolv.conf
	Timeout     time.Duration    // of one query, never 0
	MinInterval time.Duration    // bounds of the time between two lookups, whatever the TTL
	MaxInterval time.Duration    // never below MinInterval
}

// Service is what clients connect to.
type Service struct {
	Name        string // unique across protocols
	Protocol    Protocol
	Mode        Mode
	Listen      []netip.AddrPort // at least one, port ranges expanded
	Source      Source
	IdleTimeout time.Duration // 0: off
	MaxLifetime time.Duration // 0: off
	Backends    []Backend     // the default pool: nil for an intercept service without one, may be nil where there are Routes

	Announce          bool   // the addresses of Listen to neighbours; of ModeVIP only
	AnnounceInterface string // where, "": where the addresses are on link; "" without Announce

	Balance         Algorithm // "" without backends
	Hash            Hash      // of Maglev, else ""
	MaglevTableSize int       // of Maglev, a prime number, else 0
	HashSeed        uint64    // of Maglev and source hash, else 0

	SlowStart       time.Duration // of round-robin, least-conn and random-two, else 0: full weight at once
	OnBackendDown   OnBackendDown // "" without any backend
	Panic           Panic         // "" without Health and Ejection
	ResolveInterval time.Duration // of backends given by name, 0: the TTL; 0 where none is
	Admission       *Admission    // nil: everybody is admitted, without limit
	Health          *Health       // nil: no active checks
	Ejection        *Ejection     // nil: no passive checks
	Shadow          *Shadow       // nil: flows are not copied

	ProxyProtocol     ProxyProtocol
	ProxyProtocolFrom []netip.Prefix // sorted; nil: everybody for require, nobody for off
	SendProxy         SendProxy

	// Of TCP services, else 0.
	ConnectTimeout   time.Duration // never 0
	HalfCloseTimeout time.Duration // 0: off
	Keepalive        time.Duration // TCP_KEEPIDLE of both legs, 0: no keepalive
	UserTimeout      time.Duration // TCP_USER_TIMEOUT of both legs, 0: the kernel's
	Retries          int
	MaxConnections   int // 0: only the limit of the process

	QueueSize            int           // flows that may wait for a backend, 0: none
	QueueTimeout         time.Duration // never 0 with backends, 0 without
	ProxyProtocolTimeout time.Duration // for the header to arrive, 0 if ProxyProtocol is off
	Routes               []Route       // pools that the ClientHello chooses
	ClientHelloTimeout   time.Duration // 0 without routes
	ClientHelloMax       int           // bytes, 0 without routes

	// Of UDP services, else 0.
	UnrepliedTimeout time.Duration // idle timeout until the first reply, 0: IdleTimeout; never above an IdleTimeout
	MaxFlows         int           // 0: only the limit of the process
	Responses        int           // replies to each datagram of the client that end the flow, 0: any number
	Requests         int           // datagrams of the client in a flow, 0: any number
}

// Backend is one server of a service, or a name that stands for several.
type Backend struct {
	Name    string         // unique within the service, its routes included
	Address netip.AddrPort // the zero value for a name
	Host    string         // host name without the last dot, in lower case, else ""
	Port    uint16         // of Host, else 0
	SRV     string         // name of SRV records without the last dot, in lower case, else ""
	Weight  int            // 0 to 256, 0: no new flows
	Backup  bool           // used when no other is
	Limit   int            // max_connections or max_flows, 0: none
}

// Discovered reports whether the addresses of the backend are to be looked up.
func (b Backend) Discovered() bool { return !b.Address.IsValid() }

// Route is a pool for the flows whose ClientHello matches.
type Route struct {
	Name     string    // unique within the service
	SNI      []string  // lower case, "*.example.org" stands for all names below; nil: any
	ALPN     []string  // any of them offered; nil: any
	Backends []Backend // at least one
}

// Algorithm says how a backend is chosen.
type Algorithm string

// The algorithms.
const (
	BalanceRoundRobin Algorithm = "round-robin" // in turn, by weight
	BalanceLeastConn  Algorithm = "least-conn"  // the fewest flows for its weight
	BalanceRandomTwo  Algorithm = "random-two"  // the better of two drawn by weight
	BalanceSourceHash Algorithm = "source-hash" // by client address, consistent
	BalanceMaglev     Algorithm = "maglev"      // by Hash, consistent
	BalanceFirst      Algorithm = "first"       // the first in the order of the file
)

// Hash says what of a flow Maglev goes by.
type Hash string

// The hashes.
const (
	HashFiveTuple Hash = "5-tuple"   // both addresses, both ports and the protocol
	HashClientIP  Hash = "client-ip" // the client's address
)

// Protocol is what a service proxies.
type Protocol string

// The protocols of a service.
const (
	ProtocolTCP Protocol = "tcp"
	ProtocolUDP Protocol = "udp"
)

// Mode says how traffic reaches a service.
type Mode string

// The modes of a service.
const (
	ModeVIP       Mode = "vip"       // a virtual IP, bound with IP_TRANSPARENT
	ModeIntercept Mode = "intercept" // the target of a TPROXY rule
)

// Source says which source address a backend sees.
type Source string

// The source policies of a service.
const (
	SourceClient       Source = "client"        // the client's address and port
	SourceClientIP     Source = "client-ip"     // the client's address, any port
	SourcePreferClient Source = "prefer-client" // as client, on a conflict as client-ip
	SourceHost         Source = "host"          // an address of this host
)

// Format is the form of the log.
type Format string

// The forms of the log.
const (
	FormatJSON    Format = "json"
	FormatConsole Format = "console"
)

// Access is the form of the access records.
type Access string

// The forms of the access records.
const (
	AccessJSON    Access = "json"
	AccessHAProxy Access = "haproxy"
	AccessOff     Access = "off"
)

// OnBackendDown says what becomes of the flows of a backend that goes down.
type OnBackendDown string

// What becomes of the flows of a backend that goes down.
const (
	BackendDownKeep OnBackendDown = "keep"
	BackendDownCut  OnBackendDown = "cut"
)

// Panic says what happens when no backend of a pool is up.
type Panic string

// What happens when no backend of a pool is up.
const (
	PanicClosed Panic = "closed" // flows are refused
	PanicOpen   Panic = "open"   // all backends are used as if they were up
)

// ProxyProtocol says whose flows begin with a header of the PROXY protocol.
type ProxyProtocol string

// Whose flows begin with a header of the PROXY protocol.
const (
	ProxyProtocolOff        ProxyProtocol = "off"
	ProxyProtocolRequire    ProxyProtocol = "require"     // all; those not of ProxyProtocolFrom are refused
	ProxyProtocolAcceptFrom ProxyProtocol = "accept-from" // those of ProxyProtocolFrom, no others
)

// SendProxy is the PROXY protocol header that backends get.
type SendProxy string

// The PROXY protocol headers that backends get.
const (
	SendProxyOff SendProxy = "off"
	SendProxyV1  SendProxy = "v1" // of TCP only
	SendProxyV2  SendProxy = "v2"
)

// HealthType is how backends are checked.
type HealthType string

// How backends are checked.
const (
	HealthTCP  HealthType = "tcp"
	HealthHTTP HealthType = "http"
	HealthTLS  HealthType = "tls"
	HealthUDP  HealthType = "udp"
	HealthDNS  HealthType = "dns"
)

// Initial is the state of a backend before its first checks.
type Initial string

// The states of a backend before its first checks.
const (
	InitialUp   Initial = "up"
	InitialDown Initial = "down"
)

// CheckSource says which address checks come from.
type CheckSource string

// Which address checks come from.
const (
	CheckSourceHost  CheckSource = "host"
	CheckSourceSpoof CheckSource = "spoof"
)
