package admin

import (
	"errors"
	"fmt"
	"math"
	"net/netip"
	"strconv"
	"time"
)

// TapQuery chooses packets. The zero value of a field that chooses means any.
type TapQuery struct {
	Flow      uint64
	Service   string
	Backend   string       // its name
	Client    netip.Prefix // an address is a prefix of full length
	Protocol  string       // tcp or udp
	Direction string       // in or out; "": both
	Filter    string       // an expression as of tcpdump
	All       bool         // packets that belong to no flow, too

	Headers bool // cut behind the headers of TCP and UDP
	Wire    bool // super-frames cut to what the wire has

	Count int           // of Live: packets; 0: no end
	Last  time.Duration // of Dump: how long back; 0: all there is
}

// MaxDumpLast is how far back a dump may be asked to go.
const MaxDumpLast = 24 * time.Hour

// ParseLiveQuery reads the query part of a URL for a live stream.
func ParseLiveQuery(rawQuery string) (TapQuery, error) {
	return parseTapQuery(rawQuery, "gso", "count")
}

// ParseDumpQuery reads the query part of a URL for a dump, which must say of
// what, since all is a lot.
func ParseDumpQuery(rawQuery string) (TapQuery, error) {
	q, err := parseTapQuery(rawQuery, "last")
	if err != nil {
		return TapQuery{}, err
	}
	if !q.All && q.Flow == 0 && q.Service == "" && q.Backend == "" && !q.Client.IsValid() {
		return TapQuery{}, errors.New("of what? Give flow, service, backend, client, or all=true")
	}
	return q, nil
}

func parseTapQuery(rawQuery string, more ...string) (TapQuery, error) {
	known := append([]string{"flow", "service", "backend", "client", "protocol", "direction", "filter", "profile", "all"}, more...)
	values, err := parameters(rawQuery, known...)
	if err != nil {
		return TapQuery{}, err
	}
	q := TapQuery{Service: values["service"], Backend: values["backend"], Filter: values["filter"]}
	var errs [9]error
	if text := values["flow"]; text != "" {
		var id FlowID
		if id, errs[0] = ParseFlowID(text); errs[0] == nil && id == 0 {
			errs[0] = errors.New("flow 0: want the id of a flow")
		}
		q.Flow = uint64(id)
	}
	if text := values["client"]; text != "" {
		q.Client, errs[1] = ParseClient(text)
	}
	q.Protocol, errs[2] = oneOf("protocol", values["protocol"], "", "tcp", "udp")
	q.Direction, errs[3] = oneOf("direction", values["direction"], "", "both", "in", "out")
	if q.Direction == "both" {
		q.Direction = ""
	}
	var profile, all, gso string
	profile, errs[4] = oneOf("profile", values["profile"], "payload", "payload", "headers")
	all, errs[5] = oneOf("all", values["all"], "false", "true", "false")
	gso, errs[6] = oneOf("gso", values["gso"], "host", "host", "wire")
	q.Headers, q.All, q.Wire = profile == "headers", all == "true", gso == "wire"
	if text := values["count"]; text != "" {
		q.Count, errs[7] = parseCount(text)
	}
	if text := values["last"]; text != "" {
		q.Last, errs[8] = parseLast(text)
	}
	if err := errors.Join(errs[:]...); err != nil {
		return TapQuery{}, err
	}
	return q, nil
}

func parseCount(text string) (int, error) {
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 || n > math.MaxInt32 {
		return 0, fmt.Errorf("count %q: want a number of packets, 0 for no end", text)
	}
	return n, nil
}

func parseLast(text string) (time.Duration, error) {
	d, err := time.ParseDuration(text)
	if err != nil || d <= 0 || d > MaxDumpLast {
		return 0, fmt.Errorf("last %q: want a time such as 30s, up to %v", text, MaxDumpLast)
	}
	return d, nil
}
