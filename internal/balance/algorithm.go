package balance

import "fmt"

// Algorithm says how a member is chosen.
type Algorithm uint8

// The algorithms.
const (
	RoundRobin Algorithm = iota // in turn, as often as the weight says and evenly spaced
	LeastConn                   // the fewest flows for its weight
	RandomTwo                   // two drawn by weight, the one with fewer flows for its weight
	SourceHash                  // by client address; a change moves no flow but those it has to
	Maglev                      // by a hash of the flow, see Hash; the spread is nearly exact
	First                       // the first that is not full, in the order of the members
)

var algorithmNames = [...]string{"round-robin", "least-conn", "random-two", "source-hash", "maglev", "first"}

func (a Algorithm) String() string {
	if int(a) < len(algorithmNames) {
		return algorithmNames[a]
	}
	return fmt.Sprintf("algorithm %d", uint8(a))
}

// Hash says what of a flow Maglev goes by.
type Hash uint8

// The hashes.
const (
	FiveTuple Hash = iota // both addresses, both ports and the protocol
	ClientIP              // the client's address
)

var hashNames = [...]string{"5-tuple", "client-ip"}

func (h Hash) String() string {
	if int(h) < len(hashNames) {
		return hashNames[h]
	}
	return fmt.Sprintf("hash %d", uint8(h))
}
