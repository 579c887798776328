package discovery

import (
	"cmp"
	"errors"
	"net/netip"
	"slices"
	"strconv"
	"time"
)

// MaxEndpoints is how many endpoints a name may have. Of more, the lowest
// addresses are taken.
const MaxEndpoints = 256

// A Query is a name to look up again and again: Host and Port, or SRV.
type Query struct {
	Host     string        // a host name or an address
	Port     uint16        // of the endpoints of Host
	SRV      string        // such as _https._tcp.example.org; instead of Host
	Interval time.Duration // between look-ups; 0: the TTL of the answer
}

func (q Query) String() string {
	if q.SRV != "" {
		return q.SRV
	}
	return q.Host + ":" + strconv.Itoa(int(q.Port))
}

// An Endpoint is an address that a name stands for.
type Endpoint struct {
	Addr   netip.AddrPort
	Weight int  // 1 to 256, from SRV; 0: none given
	Backup bool // a SRV priority that is not the first one
}

// An Answer is what is known of a Query.
type Answer struct {
	Endpoints []Endpoint // the last good ones, by address; not to be changed
	At        time.Time  // of the last good answer; zero: there was none
	Expires   time.Time  // when its TTL is over; zero: never
	Err       error      // why the last look-up was not good, or not wholly
}

// What a look-up may end with, apart from errors of the network.
var (
	ErrNoName     = errors.New("no such name (NXDOMAIN)")
	ErrNoData     = errors.New("name has no such records")
	ErrServer     = errors.New("server failed")
	ErrMalformed  = errors.New("malformed answer")
	ErrNotOffered = errors.New("service is not offered at this name (SRV target .)")
)

// tidy sorts endpoints, leaves out what stands twice, and cuts off what is too
// many: backups first.
func tidy(all []Endpoint) []Endpoint {
	slices.SortFunc(all, func(a, b Endpoint) int {
		return cmp.Or(a.Addr.Compare(b.Addr), compareBool(a.Backup, b.Backup), b.Weight-a.Weight)
	})
	all = slices.CompactFunc(all, func(a, b Endpoint) bool { return a.Addr == b.Addr })
	if len(all) > MaxEndpoints {
		slices.SortStableFunc(all, func(a, b Endpoint) int { return compareBool(a.Backup, b.Backup) })
		all = all[:MaxEndpoints]
		slices.SortFunc(all, func(a, b Endpoint) int { return a.Addr.Compare(b.Addr) })
	}
	return slices.Clip(all)
}

// compareBool puts false first.
func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}
