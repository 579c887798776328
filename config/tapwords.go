package config

// TapTimestamp says whose clock times the packets.
type TapTimestamp string

// The clocks.
const (
	TimestampSoftware TapTimestamp = "software" // the system's
	TimestampHardware TapTimestamp = "hardware" // the card's if it stamps, else the system's
)

// TapFanout says how the rings of an interface share its packets.
type TapFanout string

// The ways to share.
const (
	FanoutNone TapFanout = "none" // one ring
	FanoutCPU  TapFanout = "cpu"  // by the CPU that the packet came in on
	FanoutHash TapFanout = "hash" // a flow stays on one ring
)

// Direction says which packets of an interface are captured.
type Direction string

// The directions, as this host sees them.
const (
	DirectionBoth Direction = "both"
	DirectionIn   Direction = "in"
	DirectionOut  Direction = "out"
)

// Profile says what of packets is kept, and so how files are written.
type Profile string

// The profiles.
const (
	ProfileHeaders Profile = "headers"
	ProfilePayload Profile = "payload"
)

// GSO says what becomes of super-frames, which the host cuts to packets after
// they were captured, or has put together before.
type GSO string

// What becomes of super-frames.
const (
	GSOHost GSO = "host" // they stay as the host has them, with their segment size
	GSOWire GSO = "wire" // they are cut to what the wire carries
)

// Trigger is what makes the recorder write a dump.
type Trigger string

// The triggers.
const (
	TriggerUpstreamReset  Trigger = "upstream-reset"
	TriggerConnectTimeout Trigger = "connect-timeout"
	TriggerHealthChange   Trigger = "health-change"
	TriggerEjection       Trigger = "ejection"
	TriggerRTT            Trigger = "rtt"
	TriggerRetransmits    Trigger = "retransmits"
	TriggerSignal         Trigger = "signal" // SIGUSR1
)

// triggers are all of them. It is never written to.
var triggers = []Trigger{
	TriggerUpstreamReset, TriggerConnectTimeout, TriggerHealthChange, TriggerEjection, TriggerRTT, TriggerRetransmits, TriggerSignal,
}
