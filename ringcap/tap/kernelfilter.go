package tap

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"github.com/tproxyd/tproxyd/ringcap/filter"
)

// maxInstructions is how long a filter may be. Every packet of the interface
// goes through it.
const maxInstructions = 512

// kernelFilter is the program of a ring: what may belong to a flow, cut to the
// longest snap length that is needed.
func kernelFilter(endpoints []Endpoint, snap int, strays bool) []bpf.RawInstruction {
	options := filter.Options{Snap: uint32(snap), Metadata: true}
	if snap == 0 {
		options.Snap = math.MaxUint32
	}
	expression := ""
	if !strays {
		expression = endpointExpression(endpoints)
	}
	program, err := filter.Compile(expression, options)
	if err != nil || len(program) > maxInstructions {
		// All of TCP and UDP is more work, and never wrong.
		if program, err = filter.Compile("tcp or udp", options); err != nil {
			return nil
		}
	}
	return program
}

func endpointExpression(endpoints []Endpoint) string {
	var parts []string
	for _, e := range endpoints {
		if !e.Addr.IsValid() && e.Port == 0 {
			return "tcp or udp"
		}
		var p []string
		switch e.Protocol {
		case unix.IPPROTO_TCP:
			p = append(p, "tcp")
		case unix.IPPROTO_UDP:
			p = append(p, "udp")
		}
		if e.Addr.IsValid() && !e.Addr.IsUnspecified() {
			p = append(p, "host "+e.Addr.Unmap().WithZone("").String())
		}
		if e.Port != 0 {
			p = append(p, fmt.Sprintf("port %d", e.Port))
		}
		if part := "(" + strings.Join(p, " and ") + ")"; len(p) > 0 && !slices.Contains(parts, part) {
			parts = append(parts, part)
		}
	}
	if len(parts) == 0 {
		return "tcp or udp"
	}
	return strings.Join(parts, " or ")
}
