package packet

// Ends are both ends of a flow, the lower one first: the packets of either
// direction have the same.
type Ends struct {
	Low, High         [16]byte
	LowPort, HighPort uint16
	Protocol          uint8
}

// NewEnds orders the ends of a packet, and says whether its source is the lower
// one.
func NewEnds(protocol uint8, src, dst *[16]byte, sport, dport uint16) (e Ends, sourceLow bool) {
	sourceLow = sport < dport
	for i := range src {
		if src[i] != dst[i] {
			sourceLow = src[i] < dst[i]
			break
		}
	}
	if sourceLow {
		return Ends{*src, *dst, sport, dport, protocol}, true
	}
	return Ends{*dst, *src, dport, sport, protocol}, false
}
