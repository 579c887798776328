package rules

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"golang.org/x/sys/unix"
)

// The values of a Plan's fields that are left zero.
const (
	DefaultTable      = "tproxyd"
	DefaultMark       = 0x7471 // one above the mark of the daemon's own packets
	DefaultRouteTable = 0x7470
	DefaultPriority   = 1000
)

// OnFailure is what happens to intercepted traffic while nobody listens.
type OnFailure int

const (
	// Bypass lets it go its way, as if there were no proxy.
	Bypass OnFailure = iota
	// Block drops it.
	Block
)

// Protocol is the transport protocols that an intercept is about.
type Protocol int

const (
	// TCPAndUDP is both of them.
	TCPAndUDP Protocol = iota
	// TCP is TCP alone.
	TCP
	// UDP is UDP alone.
	UDP
)

// numbers returns the protocols as they stand in IP headers.
func (p Protocol) numbers() []byte {
	switch p {
	case TCP:
		return []byte{unix.IPPROTO_TCP}
	case UDP:
		return []byte{unix.IPPROTO_UDP}
	case TCPAndUDP:
		return []byte{unix.IPPROTO_TCP, unix.IPPROTO_UDP}
	}
	return nil
}

// Plan is all that is to be in place. The zero Plan brings traffic to the
// transparent sockets that exist, of TCP and UDP, which is enough for virtual
// addresses.
type Plan struct {
	// Table is the name of the nftables table, which belongs to the plan
	// alone; empty is DefaultTable.
	Table string
	// Mark is set on packets to be delivered here; 0 is DefaultMark.
	Mark uint32
	// RouteTable holds the local route and nothing else; 0 is
	// DefaultRouteTable.
	RouteTable int
	// Priority of the policy rule; 0 is DefaultPriority.
	Priority int
	// ExemptMark is on packets that are left alone, such as the proxy's own;
	// 0 exempts none.
	ExemptMark uint32

	Intercepts []Intercept
}

// Intercept is traffic of others that is to reach a listener here. Traffic to
// addresses of this host is never intercepted, nor are broadcast and multicast.
type Intercept struct {
	// Name is the nftables chain, and has to be a word of its own.
	Name string
	// Protocol to match.
	Protocol Protocol
	// DestPrefixes to match, of either family; without any, all destinations
	// are matched.
	DestPrefixes []netip.Prefix
	// DestPorts to match; without any, all ports are.
	DestPorts []Ports
	// IifName is the interface it comes in by; empty is any.
	IifName string
	// To is the address of the listener, which limits the intercept to its
	// family. The zero Addr is a listener on all addresses.
	To netip.Addr
	// ToPort is the port of the listener, or of one for each protocol.
	ToPort uint16
	// OnFailure is what happens while nobody listens.
	OnFailure OnFailure
	// LocalOutput intercepts also what programs on this host send. It needs an
	// ExemptMark, or the proxy would meet its own connections.
	LocalOutput bool
}

// Ports is a range of ports, both ends included.
type Ports struct{ First, Last uint16 }

// Port is a range of a single port.
func Port(p uint16) Ports { return Ports{First: p, Last: p} }

func (p Plan) withDefaults() Plan {
	if p.Table == "" {
		p.Table = DefaultTable
	}
	if p.Mark == 0 {
		p.Mark = DefaultMark
	}
	if p.RouteTable == 0 {
		p.RouteTable = DefaultRouteTable
	}
	if p.Priority == 0 {
		p.Priority = DefaultPriority
	}
	return p
}

// validate looks at a plan with its defaults filled in.
func (p Plan) validate() error {
	var errs []error
	if p.Mark == p.ExemptMark {
		errs = append(errs, fmt.Errorf("mark %#x is also the exempt mark: use two different ones", p.Mark))
	}
	if p.RouteTable < 1 || p.RouteTable == unix.RT_TABLE_MAIN ||
		p.RouteTable == unix.RT_TABLE_LOCAL || p.RouteTable == unix.RT_TABLE_DEFAULT {
		errs = append(errs, fmt.Errorf("route table %d is the system's: use one of your own", p.RouteTable))
	}
	names := map[string]bool{preroutingChain: true, outputChain: true, divertChain: true, defragChain: true}
	for _, in := range p.Intercepts {
		if err := in.validate(p, names); err != nil {
			errs = append(errs, fmt.Errorf("intercept %q: %w", in.Name, err))
		}
		names[in.Name] = true
	}
	return errors.Join(errs...)
}

func (in Intercept) validate(p Plan, taken map[string]bool) error {
	switch {
	case in.Name == "" || len(in.Name) > unix.NFT_NAME_MAXLEN/2 || strings.ContainsFunc(in.Name, notInName):
		return errors.New("a name has letters, digits, dashes and underscores, up to 128 of them")
	case taken[in.Name]:
		return errors.New("the name is taken")
	case in.Protocol.numbers() == nil:
		return fmt.Errorf("protocol %d is unknown", in.Protocol)
	case in.ToPort == 0:
		return errors.New("no port to go to")
	case len(in.IifName) >= unix.IFNAMSIZ:
		return fmt.Errorf("interface name %q is longer than %d bytes", in.IifName, unix.IFNAMSIZ-1)
	case in.LocalOutput && p.ExemptMark == 0:
		return errors.New("local output needs an exempt mark, or the proxy meets its own connections")
	}
	for _, r := range in.DestPorts {
		if r.First > r.Last {
			return fmt.Errorf("port range %d-%d is reversed", r.First, r.Last)
		}
	}
	for _, prefix := range in.DestPrefixes {
		if !prefix.IsValid() || prefix.Addr().Is4In6() {
			return fmt.Errorf("destination %v is no IPv4 or IPv6 prefix", prefix)
		}
		if in.To.IsValid() && in.To.Is4() != prefix.Addr().Is4() {
			return fmt.Errorf("destination %v cannot go to %v, which is of the other family", prefix, in.To)
		}
	}
	return nil
}

func notInName(r rune) bool {
	switch {
	case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '-', r == '_':
		return false
	}
	return true
}
