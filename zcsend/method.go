package zcsend

import (
	"fmt"
	"slices"
	"strings"
)

// Method is a way of handing frames to the kernel.
type Method string

// The methods. What each costs and copies is in the package's documentation.
const (
	Auto      Method = ""           // chosen for the interface: see Config.Method
	Ring      Method = "ring"       // PACKET_TX_RING
	MMsg      Method = "mmsg"       // sendmmsg on a packet socket
	GSO       Method = "gso"        // the same with PACKET_VNET_HDR, for super-frames
	SpliceUDP Method = "splice-udp" // vmsplice and splice into UDP sockets
	SpliceRaw Method = "splice-raw" // vmsplice and splice into raw IP sockets
)

// Methods returns all methods but Auto.
func Methods() []Method { return []Method{Ring, MMsg, GSO, SpliceUDP, SpliceRaw} }

// ParseMethod takes the name of a method; "auto" and "" are [Auto].
func ParseMethod(name string) (Method, error) {
	if name == "auto" || name == "" {
		return Auto, nil
	}
	if m := Method(name); slices.Contains(Methods(), m) {
		return m, nil
	}
	var names []string
	for _, m := range Methods() {
		names = append(names, string(m))
	}
	return Auto, fmt.Errorf("parse method %q: want auto, %s", name, strings.Join(names, ", "))
}

// String is the method's name.
func (m Method) String() string {
	if m == Auto {
		return "auto"
	}
	return string(m)
}

// routed says whether the kernel routes the packets and makes their Ethernet
// headers, instead of taking those of the frames.
func (m Method) routed() bool { return m == SpliceUDP || m == SpliceRaw }
