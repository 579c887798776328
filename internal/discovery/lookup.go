package discovery

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

const (
	// maxHops bounds the questions that CNAMEs lead to across messages.
	maxHops = 8
	// maxTargets bounds the hosts of one SRV name.
	maxTargets = 64
)

// A memory is the last good answer to each question of a Query.
type memory map[question]reply

// A lookup is one round of questions for one Query.
type lookup struct {
	client  *client
	servers servers
	conf    resolvConf
	hosts   []byte

	last memory // of the rounds before

	mu    sync.Mutex
	next  memory // of this one
	fresh bool   // a server had something
	errs  []error
}

// A finding is what a lookup found.
type finding struct {
	endpoints []Endpoint
	ttl       time.Duration // math.MaxInt64: nothing was asked for
	memory    memory
	err       error // with endpoints: what was taken from memory
}

// find answers q. Without endpoints there is an error.
func (l *lookup) find(ctx context.Context, q Query) finding {
	l.next = make(memory)
	f := finding{ttl: math.MaxInt64}
	var err error
	if q.SRV != "" {
		f.endpoints, f.ttl, err = l.services(ctx, q.SRV)
	} else {
		var addrs []netip.Addr
		addrs, f.ttl, err = l.host(ctx, q.Host)
		for _, a := range addrs {
			f.endpoints = append(f.endpoints, Endpoint{Addr: netip.AddrPortFrom(a, q.Port)})
		}
	}
	f.endpoints = tidy(f.endpoints)
	f.memory, f.err = l.next, errors.Join(l.errs...)
	switch {
	case f.err != nil && !l.fresh:
		f.endpoints = nil // all of it is from memory
	case len(f.endpoints) == 0:
		f.err = cmp.Or(err, ErrNoData)
	}
	return f
}

// host is the addresses of a host by whatever knows it.
func (l *lookup) host(ctx context.Context, name string) ([]netip.Addr, time.Duration, error) {
	if a, err := netip.ParseAddr(name); err == nil {
		return []netip.Addr{a.Unmap()}, math.MaxInt64, nil
	}
	plain := strings.TrimSuffix(strings.ToLower(name), ".")
	if found := lookupHosts(l.hosts, plain); len(found) > 0 {
		// The file may change, and nothing says when.
		return found, hostsTTL, nil
	}
	if plain == "localhost" || strings.HasSuffix(plain, ".localhost") {
		return []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()}, math.MaxInt64, nil
	}
	err := error(ErrNoName)
	for _, candidate := range l.conf.candidates(name) {
		var addrs []netip.Addr
		var ttl time.Duration
		addrs, ttl, err = l.addresses(ctx, candidate)
		// A failure ends the search: the next name might be somebody else's.
		if len(addrs) > 0 || !errors.Is(err, ErrNoName) && !errors.Is(err, ErrNoData) {
			return addrs, ttl, err
		}
	}
	return nil, 0, err
}

// hostsTTL is how long what the hosts file says is taken for true.
const hostsTTL = 30 * time.Second

// addresses asks for both families of an absolute name. With some addresses
// there is no error, but perhaps one noted.
func (l *lookup) addresses(ctx context.Context, name string) ([]netip.Addr, time.Duration, error) {
	kinds := [2]dnsmessage.Type{dnsmessage.TypeA, dnsmessage.TypeAAAA}
	var replies [2]reply
	var errs [2]error
	var both sync.WaitGroup
	for i, kind := range kinds {
		both.Go(func() { replies[i], errs[i] = l.remembered(ctx, question{name, kind}) })
	}
	both.Wait()
	var addrs []netip.Addr
	ttl := time.Duration(math.MaxInt64)
	for _, r := range replies {
		if len(r.addrs) > 0 {
			addrs, ttl = append(addrs, r.addrs...), min(ttl, r.ttl)
		}
	}
	if len(addrs) > 0 {
		return addrs, ttl, nil
	}
	for _, err := range errs { // a failure says more than "there is none"
		if err != nil && !errors.Is(err, ErrNoName) && !errors.Is(err, ErrNoData) {
			return nil, 0, err
		}
	}
	return nil, 0, errs[0]
}

// remembered is the answer to q, or the last good one if asking fails. That a
// name or its records do not exist is an answer too.
func (l *lookup) remembered(ctx context.Context, q question) (reply, error) {
	r, err := l.resolve(ctx, q)
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case err == nil:
		l.next[q], l.fresh = r, true
		return r, nil
	case errors.Is(err, ErrNoName) || errors.Is(err, ErrNoData):
		return reply{}, err
	}
	l.errs = append(l.errs, err)
	if r, ok := l.last[q]; ok {
		l.next[q] = r
		return r, nil
	}
	return reply{}, err
}

// resolve asks q and follows CNAMEs that lead out of the answer.
func (l *lookup) resolve(ctx context.Context, q question) (reply, error) {
	ttl := time.Duration(math.MaxInt64)
	name := q.name
	for range maxHops {
		r, err := l.client.ask(ctx, &l.servers, question{name, q.kind})
		if err != nil {
			return reply{}, err
		}
		ttl = min(ttl, r.ttl)
		switch {
		case len(r.addrs) > 0 || len(r.services) > 0:
			r.ttl = ttl
			return r, nil
		case r.code == dnsmessage.RCodeNameError:
			return reply{}, fmt.Errorf("%s %s: %w", q.name, short(q.kind), ErrNoName)
		case r.tail == "":
			return reply{}, fmt.Errorf("%s %s: %w", q.name, short(q.kind), ErrNoData)
		}
		name = r.tail
	}
	return reply{}, fmt.Errorf("%s %s: %w: CNAMEs over %d answers", q.name, short(q.kind), ErrMalformed, maxHops)
}
