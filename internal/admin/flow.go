package admin

import (
	"fmt"
	"net/netip"
	"strconv"
)

// FlowID identifies a flow, in the logs as well. Its text is 16 hex digits.
type FlowID uint64

// ParseFlowID reads what String writes. Leading zeros may be missing.
func ParseFlowID(s string) (FlowID, error) {
	id, err := strconv.ParseUint(s, 16, 64)
	if err != nil || len(s) > 16 {
		return 0, fmt.Errorf("flow id %q: want up to 16 hex digits, as the access log and the list of flows have them", s)
	}
	return FlowID(id), nil
}

// String implements fmt.Stringer.
func (id FlowID) String() string { return fmt.Sprintf("%016x", uint64(id)) }

// MarshalText implements encoding.TextMarshaler.
func (id FlowID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (id *FlowID) UnmarshalText(text []byte) (err error) {
	*id, err = ParseFlowID(string(text))
	return err
}

// FlowState is what a flow is at.
type FlowState string

// The states of a flow. Those of UDP are active.
const (
	FlowGreeting   FlowState = "greeting"   // its first bytes are read: PROXY protocol, ClientHello
	FlowQueued     FlowState = "queued"     // for a backend with room
	FlowConnecting FlowState = "connecting" // to a backend
	FlowRelaying   FlowState = "relaying"
	FlowWaiting    FlowState = "waiting" // one side has ended, the other not
	FlowResetting  FlowState = "resetting"
	FlowActive     FlowState = "active"
)

func flowStates() []FlowState {
	return []FlowState{FlowGreeting, FlowQueued, FlowConnecting, FlowRelaying, FlowWaiting, FlowResetting, FlowActive}
}

// Flow is one TCP connection or UDP flow through the proxy. Addresses that it
// does not have yet are zero, which is "" in JSON.
type Flow struct {
	ID             FlowID         `json:"flow_id"`
	Service        string         `json:"service"`
	Protocol       string         `json:"protocol"` // tcp or udp
	Client         netip.AddrPort `json:"client"`
	Destination    netip.AddrPort `json:"destination"`
	Backend        netip.AddrPort `json:"backend"`
	BackendName    string         `json:"backend_name"`
	UpstreamSource netip.AddrPort `json:"upstream_source"`
	State          FlowState      `json:"state"`
	AgeMS          int64          `json:"age_ms"`
	IdleMS         int64          `json:"idle_ms"`
	BytesIn        uint64         `json:"bytes_in"`  // from the client
	BytesOut       uint64         `json:"bytes_out"` // to the client
	PathIn         string         `json:"path_in"`   // none, copy or splice
	PathOut        string         `json:"path_out"`
	Worker         int            `json:"worker"`
}

// FlowList answers a [FlowQuery].
type FlowList struct {
	Flows   array[Flow] `json:"flows"`   // sorted, Limit of them at most
	Matched int         `json:"matched"` // how many the query matches
	Total   int         `json:"total"`   // how many there are
}
