package config

import (
	"strings"
	"time"
)

// ownKey is a key that only services of one protocol have.
type ownKey struct {
	of     Protocol
	remedy string // for where it stands in a service of the other protocol
}

const meansUDP = `write protocol = "udp" if UDP is meant, or remove it`

// ownKeys are the keys of a service and its tables that would do nothing for the other
// protocol. It is never written to.
var ownKeys = map[string]ownKey{
	"connect_timeout":    {ProtocolTCP, "remove it, or write unreplied_timeout for the wait until the first reply"},
	"half_close_timeout": {ProtocolTCP, "remove it, since UDP has no end of a stream and idle_timeout ends a flow"},
	"keepalive":          {ProtocolTCP, "remove it, since UDP has no probes"},
	"user_timeout":       {ProtocolTCP, "remove it, since UDP acknowledges nothing"},
	"retries":            {ProtocolTCP, "remove it, since UDP has no connect that could be tried again"},
	"max_connections":    {ProtocolTCP, "write max_flows"},
	"max_flows":          {ProtocolUDP, `write max_connections, or protocol = "udp" if UDP is meant`},
	"unreplied_timeout":  {ProtocolUDP, meansUDP},
	"responses":          {ProtocolUDP, meansUDP},
	"requests":           {ProtocolUDP, meansUDP},

	"queue_size":                 {ProtocolTCP, "remove it, since a datagram does not wait"},
	"queue_timeout":              {ProtocolTCP, "remove it, since a datagram does not wait"},
	"proxy_protocol_timeout":     {ProtocolTCP, "remove it, since the header is in the first datagram"},
	"route":                      {ProtocolTCP, "remove it, since routes go by the TLS ClientHello"},
	"client_hello_timeout":       {ProtocolTCP, "remove it, since routes go by the TLS ClientHello"},
	"client_hello_max":           {ProtocolTCP, "remove it, since routes go by the TLS ClientHello"},
	"max_connections_per_client": {ProtocolTCP, "write max_flows_per_client"},
	"max_flows_per_client":       {ProtocolUDP, `write max_connections_per_client, or protocol = "udp" if UDP is meant`},
}

// udpDefaults are the defaults of UDP services that differ from those of TCP.
// It is never written to.
var udpDefaults = map[string]any{
	// RFC 4787 REQ-5: a mapping lives for 2 minutes at least. TCP has keepalive
	// to find the dead; for UDP every further minute is one of useless state.
	"idle_timeout": 2 * time.Minute,
}

// serves reports whether a service of protocol p has a key. Where p is not known
// every key is as good.
func (p Protocol) serves(key string) bool {
	own, ok := ownKeys[key]
	return !ok || p == "" || own.of == p
}

// readProtocol gives the protocol of a service, or "" and notes why not.
func (t table) readProtocol() Protocol {
	before := len(t.r.errs)
	p := choice(t, "protocol", ProtocolTCP, ProtocolUDP)
	if len(t.r.errs) > before {
		return ""
	}
	return p
}

// checkProtocol notes a key that does nothing for the service's protocol.
func (t table) checkProtocol(key string) {
	if !t.protocol.serves(key) {
		t.r.failf(t.at(key), ownKeys[key].remedy, "a %s service has no such key", strings.ToUpper(string(t.protocol)))
	}
}

// readTCP reads the keys that only TCP services have.
func (t table) readTCP(s *Service) {
	s.ConnectTimeout = t.duration("connect_timeout", span{least: time.Millisecond, most: 5 * time.Minute})
	s.HalfCloseTimeout = t.duration("half_close_timeout", timeout)
	s.Keepalive = t.duration("keepalive", span{zero: true, least: time.Second, most: maxKeepalive})
	s.UserTimeout = t.duration("user_timeout", span{zero: true, least: time.Millisecond, most: maxUserTimeout})
	s.Retries = int(t.integer("retries", 10))
	s.MaxConnections = int(t.integer("max_connections", maxNumber))
}

// readUDP reads the keys that only UDP services have.
func (t table) readUDP(s *Service) {
	s.UnrepliedTimeout = t.unrepliedTimeout(s.IdleTimeout)
	s.MaxFlows = int(t.integer("max_flows", maxNumber))
	s.Responses = int(t.integer("responses", maxNumber))
	s.Requests = int(t.integer("requests", maxNumber))
	if s.Requests > 0 && s.Source == SourceClient {
		t.r.warnf(t.at("requests"), `write source = "prefer-client", or remove requests`,
			"source = %q: a client can have one flow to each backend at a time; while it has all of them, its last one goes on beyond its requests", string(s.Source))
	}
}

// unrepliedTimeout gives the idle timeout of flows without a reply. The default
// follows an idle_timeout that is shorter, since a flow that nobody answers must
// not outlive one that somebody does.
func (t table) unrepliedTimeout(idle time.Duration) time.Duration {
	d := t.duration("unreplied_timeout", timeout)
	if idle == 0 || d <= idle {
		return d
	}
	if _, given := t.values["unreplied_timeout"]; given {
		t.r.failf(t.at("unreplied_timeout"), "write at most "+formatDuration(idle)+", or a longer idle_timeout",
			"%s is longer than idle_timeout, %s", formatDuration(d), formatDuration(idle))
	}
	return idle
}
