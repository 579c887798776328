package config

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// field is a key of a table.
type field struct {
	name  string
	value any // the default, or an example where the key has none
}

// The tables of a file.
const (
	kindRoot      = ""
	kindDaemon    = "daemon"
	kindLog       = "log"
	kindAdmin     = "admin"
	kindResolver  = "resolver"
	kindService   = "service"
	kindAdmission = "admission"
	kindHealth    = "health"
	kindEjection  = "ejection"
	kindShadow    = "shadow"
	kindRoute     = "route"
	kindBackend   = "backend"
	kindMirror    = "mirror"
	kindTap       = "tap"
	kindCapture   = "capture"
	kindRecorder  = "recorder"
)

// schema gives the keys of every table, those of a service for both protocols
// (see ownKeys and udpDefaults). It is never written to.
var schema = map[string][]field{
	kindRoot: {{"daemon", nil}, {"log", nil}, {"admin", nil}, {"resolver", nil}, {"tap", nil}, {"service", nil}, {"mirror", nil}},
	kindDaemon: {
		{"workers", 0},
		{"max_connections", 0},
		{"max_flows", 0},
		{"drain_timeout", 30 * time.Second},
		{"mark", 0x7470},
	},
	kindLog: {
		{"level", "info"},
		{"format", "json"},
		{"access", "json"},
	},
	kindAdmin: {
		{"listen", "127.0.0.1:9180"},
		{"write", true}, // the default of a loopback address
		{"socket", ""},
		{"socket_mode", "0660"},
	},
	kindResolver: {
		{"servers", []string{"198.18.0.53", "[2001:db8::53]:53"}},
		{"timeout", 2 * time.Second},
		{"min_interval", time.Second},
		{"max_interval", 5 * time.Minute},
	},
	kindService: {
		{"name", "web"},
		{"protocol", "tcp"},
		{"mode", "vip"},
		{"listen", []string{"203.0.113.10:443", "[2001:db8::10]:443"}},
		{"source", "client"},
		{"announce", false},
		{"announce_interface", ""},
		{"connect_timeout", 3 * time.Second},
		{"idle_timeout", 10 * time.Minute},
		{"unreplied_timeout", 30 * time.Second},
		{"half_close_timeout", time.Minute},
		{"max_lifetime", time.Duration(0)},
		{"keepalive", 30 * time.Second},
		{"user_timeout", 30 * time.Second},
		{"retries", 1},
		{"max_connections", 0},
		{"responses", 0},
		{"requests", 0},
		{"max_flows", 0},
		{"balance", "round-robin"},
		{"hash", "5-tuple"},
		{"maglev_table_size", 65537},
		{"hash_seed", 0},
		{"slow_start", time.Duration(0)},
		{"on_backend_down", "keep"},
		{"panic", "closed"},
		{"queue_size", 0},
		{"queue_timeout", 5 * time.Second},
		{"resolve_interval", time.Duration(0)},
		{"proxy_protocol", "off"},
		{"proxy_protocol_from", []string{"198.18.0.0/24"}},
		{"proxy_protocol_timeout", 3 * time.Second},
		{"send_proxy", "off"},
		{"client_hello_timeout", 3 * time.Second},
		{"client_hello_max", 61440},
		{"admission", nil},
		{"health", nil},
		{"ejection", nil},
		{"shadow", nil},
		{"route", nil},
		{"backend", nil},
	},
	kindAdmission: {
		{"allow", []string{"203.0.113.0/24", "2001:db8::/32"}},
		{"deny", []string{"203.0.113.66"}},
		{"allow_file", ""},
		{"deny_file", ""},
		{"max_connections_per_client", 0},
		{"max_flows_per_client", 0},
		{"rate_per_client", 0.0},
		{"rate_burst", 0},
		{"client_prefix_ipv4", 32},
		{"client_prefix_ipv6", 64},
		{"max_clients", 65536},
	},
	kindHealth: {
		{"type", "tcp"},
		{"interval", 2 * time.Second},
		{"fast_interval", time.Duration(0)},
		{"jitter", 10},
		{"timeout", time.Second},
		{"rise", 2},
		{"fall", 3},
		{"initial", "up"},
		{"check_source", "host"},
		{"spoof_address", []string{"203.0.113.10"}},
		{"address", ""},
		{"port", 0},
		{"method", "GET"},
		{"path", "/"},
		{"host", ""},
		{"expect_status", "200-399"},
		{"expect_body", ""},
		{"tls", false},
		{"server_name", ""},
		{"verify", false},
		{"min_days", 0},
		{"send", ""},
		{"expect", ""},
		{"query", "."},
		{"query_type", "NS"},
		{"expect_rcode", "NOERROR"},
	},
	kindEjection: {
		{"failures", 5},
		{"base_time", 30 * time.Second},
		{"max_time", 5 * time.Minute},
		{"max_ejected_percent", 50},
	},
	kindShadow: {
		{"address", "198.18.2.9:8443"},
		{"percent", 100},
		{"direction", "in"},
		{"compare", false},
		{"linger", 5 * time.Second},
	},
	kindRoute: {
		{"name", "api"},
		{"sni", []string{"api.example", "*.api.example"}},
		{"alpn", []string{"h2"}},
		{"backend", nil},
	},
	kindBackend: {
		{"name", "web-1"},
		{"address", "198.18.2.2:8443"},
		{"srv", "_https._tcp.web.example"},
		{"weight", 1},
		{"backup", false},
		{"max_connections", 0},
		{"max_flows", 0},
	},
	kindMirror: {
		{"name", "span"},
		{"interfaces", []string{"eth0"}},
		{"to_interface", "eth2"},
		{"collector", "198.18.2.9"},
		{"encapsulation", "vxlan"},
		{"vni", 0},
		{"key", 0},
		{"session", 0},
		{"filter", ""},
		{"services", []string{"web"}},
		{"snap_length", 0},
		{"rate", ""},
		{"engine", "user"},
	},
	kindTap: {
		{"enabled", true},
		{"interfaces", []string{"auto"}},
		{"block_size", size(1 << 20)},
		{"blocks", 64},
		{"retire", 10 * time.Millisecond},
		{"timestamp", "software"},
		{"fanout", "none"},
		{"fanout_rings", 0},
		{"settle", 20 * time.Millisecond},
		{"capture", nil},
		{"recorder", nil},
	},
	kindCapture: {
		{"name", "web"},
		{"directory", "/var/lib/tproxyd/captures"},
		{"services", []string{"web"}},
		{"backends", []string{"198.18.2.2:8443"}},
		{"clients", []string{"203.0.113.0/24", "2001:db8::/32"}},
		{"protocol", ""},
		{"filter", ""},
		{"direction", "both"},
		{"sample", 100},
		{"profile", "headers"},
		{"snap_length", 0},
		{"max_size", size(64 << 20)},
		{"max_duration", time.Duration(0)},
		{"max_packets", 0},
		{"keep_files", 16},
		{"keep_size", size(0)},
		{"compress", false},
		{"gso", "host"},
		{"autostart", true},
	},
	kindRecorder: {
		{"memory", size(64 << 20)},
		{"directory", "/var/lib/tproxyd/dumps"},
		{"before", 10 * time.Second},
		{"after", 2 * time.Second},
		{"triggers", []string{"upstream-reset", "connect-timeout", "health-change", "ejection", "signal"}},
		{"rtt_threshold", time.Duration(0)},
		{"retransmit_threshold", 0},
		{"rate", 6},
		{"keep_files", 32},
		{"profile", "headers"},
		{"snap_length", 0},
	},
}

// headers is how the tables are written in a file.
var headers = map[string]string{
	kindDaemon:    "[daemon]",
	kindLog:       "[log]",
	kindAdmin:     "[admin]",
	kindResolver:  "[resolver]",
	kindService:   "[[service]]",
	kindAdmission: "[service.admission]",
	kindHealth:    "[service.health]",
	kindEjection:  "[service.ejection]",
	kindShadow:    "[service.shadow]",
	kindRoute:     "[[service.route]]",
	kindBackend:   "[[service.backend]]",
	kindMirror:    "[[mirror]]",
	kindTap:       "[tap]",
	kindCapture:   "[[tap.capture]]",
	kindRecorder:  "[tap.recorder]",
}

// header is how the table is written in a file.
func (t table) header() string {
	if t.kind == kindBackend && t.ofRoute {
		return "[[service.route.backend]]"
	}
	return headers[t.kind]
}

// headerOf is how a table in this one is written in a file.
func (t table) headerOf(kind string) string {
	return table{kind: kind, ofRoute: t.kind == kindRoute}.header()
}

// inService reports whether a table stands below a [[service]].
func inService(kind string) bool { return strings.Contains(headers[kind], "service.") }

// lookup gives a key of a table.
func lookup(kind, name string) (field, bool) {
	for _, f := range schema[kind] {
		if f.name == name {
			return f, true
		}
	}
	return field{}, false
}

// example shows how a key is written.
func (f field) example() string {
	switch v := f.value.(type) {
	case string:
		return fmt.Sprintf("%s = %q", f.name, v)
	case []string:
		return fmt.Sprintf("%s = [%s]", f.name, quoteAll(v))
	case size:
		return fmt.Sprintf("%s = %q", f.name, formatSize(int64(v)))
	case time.Duration:
		return fmt.Sprintf("%s = %q", f.name, formatDuration(v))
	default:
		return fmt.Sprintf("%s = %v", f.name, v)
	}
}

// suggest gives the remedy for a key that the table does not have.
func (t table) suggest(name string) string {
	kind := t.kind
	for _, f := range schema[kind] { // [[service.backends]] is no key of another table
		if f.value == nil && name == f.name+"s" {
			return fmt.Sprintf("write %s, or remove it", t.headerOf(f.name))
		}
	}
	var homes []string
	for _, other := range slices.Sorted(maps.Keys(headers)) {
		if _, ok := lookup(other, name); ok && t.protocol.serves(name) {
			homes = append(homes, headers[other])
		}
	}
	if inService(kind) && slices.Contains(homes, headers[kindService]) {
		above := "the first " + t.header()
		if !strings.HasPrefix(above, "the first [[") {
			above = "its " + t.header()
		}
		return "move it to its [[service]], above " + above
	}
	if len(homes) > 0 {
		return "move it to " + strings.Join(homes, " or ")
	}
	var names []string
	best, bestDistance := "", 1+len(name)/4
	for _, f := range schema[kind] {
		if !t.protocol.serves(f.name) {
			continue
		}
		names = append(names, f.name)
		if d := distance(name, f.name); d <= bestDistance {
			best, bestDistance = f.name, d-1
			if f.value == nil {
				best = t.headerOf(f.name)
			}
		}
	}
	if best != "" {
		return fmt.Sprintf("write %s, or remove it", best)
	}
	return "remove it, the keys here are " + strings.Join(names, ", ")
}

// distance is the number of letters to insert, remove, replace or swap with the
// next to get from a to b (optimal string alignment). Long strings are far.
func distance(a, b string) int {
	const most = 64
	if len(a) > most || len(b) > most {
		return most
	}
	var before, last []int
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		before, last, row = last, row, make([]int, len(b)+1)
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
	}
	return row[len(b)]
}
