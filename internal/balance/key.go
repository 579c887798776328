package balance

import (
	"encoding/binary"
	"net/netip"

	"github.com/cespare/xxhash/v2"
)

// Key is what SourceHash and Maglev know of a flow. An IPv4 address and the
// IPv6 address it is mapped to are the same; zones do not count.
type Key struct {
	Client      netip.AddrPort
	Destination netip.AddrPort // the address that the client spoke to
	Protocol    uint8          // IPPROTO_TCP, IPPROTO_UDP
}

// hashClient hashes the client's address.
func (k *Key) hashClient(seed uint64) uint64 {
	var b [8 + 16]byte
	binary.LittleEndian.PutUint64(b[:], seed)
	a := k.Client.Addr().As16()
	copy(b[8:], a[:])
	return xxhash.Sum64(b[:])
}

// hashFlow hashes all of k.
func (k *Key) hashFlow(seed uint64) uint64 {
	var b [8 + 16 + 16 + 2 + 2 + 1]byte
	binary.LittleEndian.PutUint64(b[:], seed)
	a := k.Client.Addr().As16()
	copy(b[8:], a[:])
	a = k.Destination.Addr().As16()
	copy(b[24:], a[:])
	binary.LittleEndian.PutUint16(b[40:], k.Client.Port())
	binary.LittleEndian.PutUint16(b[42:], k.Destination.Port())
	b[44] = k.Protocol
	return xxhash.Sum64(b[:])
}

// hashName hashes the name of a member for one use of it.
func hashName(seed uint64, use byte, name string) uint64 {
	b := binary.LittleEndian.AppendUint64(nil, seed)
	return xxhash.Sum64(append(append(b, use), name...))
}

// The uses of a member's hash.
const (
	useOffset     = 'o'
	useSkip       = 's'
	useRendezvous = 'r'
)
