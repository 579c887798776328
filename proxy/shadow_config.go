package proxy

import (
	"net/netip"
	"time"

	"github.com/tproxyd/tproxyd/internal/balance"
)

// ShadowDirection says what of a flow its shadow gets.
type ShadowDirection uint8

// The directions of shadows.
const (
	ShadowIn   ShadowDirection = iota // what clients send
	ShadowOut                         // what upstreams send
	ShadowBoth                        // both, on a connection each
)

// has reports whether what is read from leg side is copied.
func (d ShadowDirection) has(side int) bool {
	return d == ShadowBoth || (d == ShadowIn) == (side == client)
}

// Shadow is a server that gets a copy of what flows carry. Its answers are
// thrown away, and nothing that it does reaches a flow.
type Shadow struct {
	Address   netip.AddrPort
	Percent   int // of the flows, chosen by their id
	Direction ShadowDirection
	Compare   bool          // its answers with those of the upstream; not with ShadowOut
	Linger    time.Duration // how long a copy may go on when its flow has ended; must be positive
}

// takes reports whether the flow called id has a shadow. Ids count up: they are
// mixed, so that neighbours and workers have the same chance.
func (s *Shadow) takes(id uint64) bool {
	return balance.Mix(id+0x9e3779b97f4a7c15)%100 < uint64(s.Percent)
}
