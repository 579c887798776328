package tap

import (
	"net/netip"
	"time"
)

// Flow is what the proxy tells of a flow. The client's leg is Client to
// Destination, the other Source to Upstream.
type Flow struct {
	ID                  uint64
	Began               time.Time // now if zero
	Service             string
	Backend, Algorithm  string
	Why                 string // this backend
	Policy              string // of the source address
	Protocol            uint8
	Client, Destination netip.AddrPort
	Source, Upstream    netip.AddrPort
}

// Event is a decision of the proxy, a comment at its time in captures.
type Event struct {
	Time             time.Time
	Kind             string
	Flow             uint64 // 0 if it is about none
	Service, Backend string
	Client           netip.AddrPort
	Text             string
}

// Completeness compares what was captured of a flow with what the proxy has
// relayed. In is from the client to the backend.
type Completeness struct {
	Flow, RelayedIn, RelayedOut uint64
	Service, Reason             string
	// Bytes of payload on the wire, retransmissions counted once.
	ClientIn, ClientOut, UpstreamIn, UpstreamOut uint64
	// Ratio is the least of these to what was relayed, of the legs that were
	// seen at all, and at most 1. It is 0 if none was.
	Ratio float64
}
