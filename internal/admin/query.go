package admin

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// The limits of a FlowQuery.
const (
	DefaultFlowLimit = 100
	MaxFlowLimit     = 10_000
)

// FlowKey is what flows are sorted by; flows that are alike in it, by their id.
type FlowKey string

// The keys.
const (
	ByAge   FlowKey = "age"
	ByBytes FlowKey = "bytes" // of both directions
	ByIdle  FlowKey = "idle"
	ByID    FlowKey = "id"
)

// FlowQuery chooses flows and their order. The zero value of a field that
// chooses means any.
type FlowQuery struct {
	Service  string
	Backend  string       // its name
	Client   netip.Prefix // an address is a prefix of full length
	Protocol string       // tcp or udp
	State    FlowState

	Sort       FlowKey // "": ByAge
	Descending bool
	Limit      int
}

// Match tells whether q asks for f. It does not allocate.
func (q *FlowQuery) Match(f *Flow) bool {
	switch {
	case q.Service != "" && q.Service != f.Service,
		q.Backend != "" && q.Backend != f.BackendName,
		q.Protocol != "" && q.Protocol != f.Protocol,
		q.State != "" && q.State != f.State:
		return false
	}
	return !q.Client.IsValid() || q.Client.Contains(f.Client.Addr().Unmap().WithZone(""))
}

// Less tells whether a comes before b. It is a total order where ids differ.
func (q *FlowQuery) Less(a, b *Flow) bool {
	var c int
	switch q.Sort {
	case ByAge, "":
		c = cmp.Compare(a.AgeMS, b.AgeMS)
	case ByBytes:
		c = cmp.Compare(a.BytesIn+a.BytesOut, b.BytesIn+b.BytesOut)
	case ByIdle:
		c = cmp.Compare(a.IdleMS, b.IdleMS)
	case ByID:
	}
	if c == 0 {
		c = cmp.Compare(a.ID, b.ID)
	}
	if q.Descending {
		return c > 0
	}
	return c < 0
}

// ParseFlowQuery reads the query part of a URL. The order is descending by
// default, except by id.
func ParseFlowQuery(rawQuery string) (FlowQuery, error) {
	values, err := parameters(rawQuery, "service", "backend", "client", "protocol", "state", "sort", "order", "limit")
	if err != nil {
		return FlowQuery{}, err
	}
	q := FlowQuery{Service: values["service"], Backend: values["backend"], Limit: DefaultFlowLimit}
	var errs [6]error
	q.Protocol, errs[0] = oneOf("protocol", values["protocol"], "", "tcp", "udp")
	q.State, errs[1] = oneOf("state", values["state"], "", flowStates()...)
	q.Sort, errs[2] = oneOf("sort", values["sort"], ByAge, ByAge, ByBytes, ByIdle, ByID)
	order := "desc"
	if q.Sort == ByID {
		order = "asc"
	}
	order, errs[3] = oneOf("order", values["order"], order, "asc", "desc")
	q.Descending = order == "desc"
	if text := values["client"]; text != "" {
		q.Client, errs[4] = ParseClient(text)
	}
	if text := values["limit"]; text != "" {
		q.Limit, errs[5] = parseLimit(text)
	}
	return q, errors.Join(errs[:]...)
}

// ParseClient reads a prefix or an address, which is a prefix of full length.
func ParseClient(text string) (netip.Prefix, error) {
	if prefix, err := netip.ParsePrefix(text); err == nil && !prefix.Addr().Is4In6() {
		return prefix.Masked(), nil
	}
	if addr, err := netip.ParseAddr(text); err == nil && addr.Zone() == "" {
		addr = addr.Unmap()
		return netip.PrefixFrom(addr, addr.BitLen()), nil
	}
	return netip.Prefix{}, fmt.Errorf("client %q: want an address or a prefix, such as 198.18.1.2 or 2001:db8::/32", text)
}

func parseLimit(text string) (int, error) {
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > MaxFlowLimit {
		return 0, fmt.Errorf("limit %q: want a number from 1 to %d", text, MaxFlowLimit)
	}
	return n, nil
}

// parameters reads the query part of a URL. Each of the known parameters may be
// there once, and no other.
func parameters(rawQuery string, known ...string) (map[string]string, error) {
	all, err := url.ParseQuery(rawQuery)
	if err != nil {
		return nil, &refusal{http.StatusBadRequest, fmt.Sprintf("query: %v", err)}
	}
	values := make(map[string]string, len(all))
	for name, texts := range all {
		switch {
		case !slices.Contains(known, name) && len(known) == 0:
			return nil, &refusal{http.StatusBadRequest, fmt.Sprintf("unknown parameter %q; there are none", name)}
		case !slices.Contains(known, name):
			return nil, &refusal{http.StatusBadRequest, fmt.Sprintf("unknown parameter %q; there are %s", name, strings.Join(known, ", "))}
		case len(texts) > 1:
			return nil, &refusal{http.StatusBadRequest, fmt.Sprintf("parameter %q is there %d times", name, len(texts))}
		}
		values[name] = texts[0]
	}
	return values, nil
}

// oneOf returns text as one of the allowed values, or byDefault if it is empty.
func oneOf[T ~string](name, text string, byDefault T, allowed ...T) (T, error) {
	if text == "" {
		return byDefault, nil
	}
	if slices.Contains(allowed, T(text)) {
		return T(text), nil
	}
	names := make([]string, len(allowed))
	for i, a := range allowed {
		names[i] = string(a)
	}
	return "", &refusal{http.StatusBadRequest, fmt.Sprintf("%s %q: want one of %s", name, text, strings.Join(names, ", "))}
}
