package config

import (
	"math"
	"net/netip"
)

// Admission says which clients a service admits, and how many of their flows. A
// client is a prefix of the length ClientPrefixIPv4 or ClientPrefixIPv6.
type Admission struct {
	// Of both lists the longest prefix that a client's address matches decides;
	// where none does, the client is admitted if Allow is empty. They hold the
	// prefixes of the files too, masked, sorted, each once.
	Allow, Deny []netip.Prefix

	// The part of Allow and Deny that stands in the configuration itself.
	AllowInline, DenyInline []netip.Prefix
	AllowFile, DenyFile     string // absolute paths, "" for none

	MaxConnectionsPerClient int     // max_flows_per_client of UDP, 0: no limit
	RatePerClient           float64 // new flows a second, 0: no limit
	RateBurst               int     // 0 without RatePerClient
	ClientPrefixIPv4        int     // 1 to 32
	ClientPrefixIPv6        int     // 1 to 128
	MaxClients              int     // clients remembered, never 0
}

// What bounds the limits by client.
const (
	minRate    = 0.001
	maxRate    = 1e6
	maxClients = 1 << 24
)

// readAdmission reads [service.admission].
func (t table) readAdmission(s *Service) {
	t, ok := t.nested(kindAdmission)
	if !ok {
		return
	}
	a := &Admission{
		RatePerClient:    t.number("rate_per_client", minRate, maxRate),
		ClientPrefixIPv4: int(t.between("client_prefix_ipv4", 1, 32)),
		ClientPrefixIPv6: int(t.between("client_prefix_ipv6", 1, 128)),
		MaxClients:       int(t.between("max_clients", 1, maxClients)),
	}
	before := len(t.r.errs)
	allow, deny := t.prefixes("allow"), t.prefixes("deny")
	a.AllowInline, a.DenyInline = unique(allow), unique(deny)
	var more []entry
	a.AllowFile, more = t.listFile("allow_file")
	allow = append(allow, more...)
	a.DenyFile, more = t.listFile("deny_file")
	deny = append(deny, more...)
	a.Allow, a.Deny = unique(allow), unique(deny)
	if len(t.r.errs) == before {
		t.checkContradictions(allow, deny)
	}
	perClient := "max_connections_per_client"
	if t.protocol == ProtocolUDP {
		perClient = "max_flows_per_client"
	}
	a.MaxConnectionsPerClient = int(t.integer(perClient, maxNumber))
	a.RateBurst = int(t.integer("rate_burst", maxNumber))
	switch {
	case a.RateBurst > 0 && a.RatePerClient == 0:
		t.r.failf(t.at("rate_burst"), "remove it, or add rate_per_client", "without rate_per_client there is no such limit")
	case a.RateBurst == 0 && a.RatePerClient > 0:
		a.RateBurst = int(math.Ceil(a.RatePerClient))
	}
	if a.MaxConnectionsPerClient == 0 && a.RatePerClient == 0 {
		for _, key := range []string{"client_prefix_ipv4", "client_prefix_ipv6", "max_clients"} {
			t.idle(key, "add "+perClient+" or rate_per_client, or remove it", "there is no limit by client")
		}
	}
	s.Admission = a
}

// checkContradictions notes prefixes of both lists, which are sorted.
func (t table) checkContradictions(allow, deny []entry) {
	found := 0
	var last netip.Prefix
	for _, d := range deny {
		for len(allow) > 0 && allow[0].prefix.Compare(d.prefix) < 0 {
			allow = allow[1:]
		}
		if len(allow) == 0 || found == maxErrors {
			return
		}
		if allow[0].prefix != d.prefix || d.prefix == last {
			continue
		}
		last = d.prefix
		found++
		e := Error{File: d.file, Line: d.line, Remedy: "remove one of them"}
		if e.File == "" {
			e.File, e.Key = t.r.file, t.at("deny").key
		}
		e.Msg = d.prefix.String() + " is in allow too, at " + allow[0].where()
		t.r.errs = append(t.r.errs, e)
	}
}
