package discovery

import (
	"cmp"
	"context"
	"errors"
	"math"
	"net/netip"
	"slices"
	"sync"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// maxWeight is the most that a backend may weigh.
const maxWeight = 256

// services is the endpoints of a SRV name, which is absolute as it stands.
func (l *lookup) services(ctx context.Context, name string) ([]Endpoint, time.Duration, error) {
	r, err := l.remembered(ctx, question{absolute(name), dnsmessage.TypeSRV})
	if err != nil {
		return nil, 0, err
	}
	records := offered(r.services)
	if len(records) == 0 {
		return nil, 0, ErrNotOffered
	}
	hosts, ttl, err := l.targets(ctx, records)
	var all []Endpoint
	for _, s := range records {
		for _, a := range hosts[s.target] {
			all = append(all, Endpoint{
				Addr:   netip.AddrPortFrom(a, s.port),
				Weight: scale(s, records),
				Backup: s.priority > records[0].priority,
			})
		}
	}
	return all, min(ttl, r.ttl), err
}

// offered is the records that name a host, the first priority first, and as many
// as there may be.
func offered(all []service) []service {
	some := slices.DeleteFunc(slices.Clone(all), func(s service) bool { return s.target == "." || s.port == 0 })
	slices.SortFunc(some, func(a, b service) int {
		return cmp.Or(cmp.Compare(a.priority, b.priority), cmp.Compare(b.weight, a.weight),
			cmp.Compare(a.target, b.target), cmp.Compare(a.port, b.port))
	})
	some = slices.Compact(some)
	return some[:min(len(some), maxTargets)]
}

// targets is the addresses of the hosts that the records name.
func (l *lookup) targets(ctx context.Context, records []service) (map[string][]netip.Addr, time.Duration, error) {
	names := make([]string, len(records))
	for i, s := range records {
		names[i] = s.target
	}
	slices.Sort(names)
	hosts := make(map[string][]netip.Addr)
	var (
		mu   sync.Mutex
		all  sync.WaitGroup
		ttl  = time.Duration(math.MaxInt64)
		errs []error
	)
	for _, host := range slices.Compact(names) {
		all.Go(func() {
			addrs, t, err := l.addresses(ctx, host)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				errs = append(errs, err)
				return
			}
			hosts[host], ttl = addrs, min(ttl, t)
		})
	}
	all.Wait()
	return hosts, ttl, errors.Join(errs...)
}

// scale is the weight of s, so that the heaviest of its priority weighs at most
// maxWeight and none weighs nothing.
func scale(s service, all []service) int {
	heaviest := 0
	for _, other := range all {
		if other.priority == s.priority {
			heaviest = max(heaviest, int(other.weight))
		}
	}
	weight := int(s.weight)
	if heaviest > maxWeight {
		weight = (weight*maxWeight + heaviest/2) / heaviest
	}
	return max(weight, 1)
}
