package config

import (
	"net/netip"
	"time"
)

// Config is a whole configuration: valid, with every default filled in. It is
// shared between goroutines and must not be changed.
type Config struct {
	Daemon   Daemon
	Log      Log
	Admin    Admin
	Services []Service
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

// Admin holds the settings of the admin listener.
type Admin struct {
	Listen netip.AddrPort // the zero value switches it off
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
	Backends    []Backend     // nil for an intercept service without a pool

	Balance         Algorithm // "" without backends
	Hash            Hash      // of Maglev, else ""
	MaglevTableSize int       // of Maglev, a prime number, else 0
	HashSeed        uint64    // of Maglev and source hash, else 0

	// Of TCP services, else 0.
	ConnectTimeout   time.Duration // never 0
	HalfCloseTimeout time.Duration // 0: off
	Keepalive        time.Duration // TCP_KEEPIDLE of both legs, 0: no keepalive
	UserTimeout      time.Duration // TCP_USER_TIMEOUT of both legs, 0: the kernel's
	Retries          int
	MaxConnections   int // 0: only the limit of the process

	// Of UDP services, else 0.
	UnrepliedTimeout time.Duration // idle timeout until the first reply, 0: IdleTimeout; never above an IdleTimeout
	MaxFlows         int           // 0: only the limit of the process
	Responses        int           // replies to each datagram of the client that end the flow, 0: any number
	Requests         int           // datagrams of the client in a flow, 0: any number
}

// Backend is one server of a service.
type Backend struct {
	Name    string // unique within the service
	Address netip.AddrPort
	Weight  int  // 0 to 256, 0: no new flows
	Backup  bool // used when no other is
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
