package config

import (
	"encoding/hex"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// healthKeys are the keys that only some types of check have. It is never
// written to.
var healthKeys = []struct {
	name string
	of   []HealthType
}{
	{"method", []HealthType{HealthHTTP}},
	{"path", []HealthType{HealthHTTP}},
	{"host", []HealthType{HealthHTTP}},
	{"expect_status", []HealthType{HealthHTTP}},
	{"expect_body", []HealthType{HealthHTTP}},
	{"tls", []HealthType{HealthHTTP}},
	{"server_name", []HealthType{HealthTLS, HealthHTTP}},
	{"verify", []HealthType{HealthTLS, HealthHTTP}},
	{"min_days", []HealthType{HealthTLS, HealthHTTP}},
	{"send", []HealthType{HealthUDP}},
	{"expect", []HealthType{HealthUDP}},
	{"query", []HealthType{HealthDNS}},
	{"query_type", []HealthType{HealthDNS}},
	{"expect_rcode", []HealthType{HealthDNS}},
}

// tlsKeys are those of healthKeys that http has with tls = true only.
var tlsKeys = []string{"server_name", "verify", "min_days"}

// takes reports whether a type of check has one of the healthKeys. Where it is
// not known every key is as good.
func (h HealthType) takes(key string) bool {
	for _, k := range healthKeys {
		if k.name == key {
			return h == "" || slices.Contains(k.of, h)
		}
	}
	return true
}

// checkHealthKeys notes the keys that do nothing for the type.
func (t table) checkHealthKeys(h HealthType) {
	for _, k := range healthKeys {
		if !h.takes(k.name) {
			t.refuse(k.name, fmt.Sprintf("remove it, or write type = %s", strings.ReplaceAll(quoteAll(k.of), ", ", " or ")),
				"type = %q has no such key", string(h))
		}
	}
}

const (
	maxPath = 1024 // bytes
	maxBody = 4096 // bytes of expect_body, which must occur in the first 64 KiB
)

var (
	methodToken = regexp.MustCompile(`^[A-Z]{1,16}$`)
	urlPath     = regexp.MustCompile(`^/[!-~]*$`)
	hostHeader  = regexp.MustCompile(`^[A-Za-z0-9._:\[\]-]{0,255}$`)
)

// readHTTP reads the keys of http checks.
func (t table) readHTTP(h *Health) {
	if !h.Type.takes("method") {
		return
	}
	h.Method = t.matching("method", methodToken, "HTTP method", `write it in capital letters, such as "GET"`)
	h.Path = t.matching("path", urlPath, "path", `write one that begins with "/", in ASCII and without spaces`)
	if len(h.Path) > maxPath {
		t.r.failf(t.at("path"), "write a shorter one", "the path has %d bytes, more than %d", len(h.Path), maxPath)
	}
	h.Host = t.matching("host", hostHeader, "Host header", `write a name as DNS has it, with :PORT if it needs one, or ""`)
	h.ExpectStatus = t.statuses()
	h.TLS = t.boolean("tls")
	h.ExpectBody = t.string("expect_body")
	switch {
	case len(h.ExpectBody) > maxBody:
		t.r.failf(t.at("expect_body"), "write a part of it", "the text has %d bytes, more than %d", len(h.ExpectBody), maxBody)
	case h.ExpectBody != "" && h.Method == "HEAD":
		t.r.failf(t.at("expect_body"), `remove it, or write method = "GET"`, "answers to HEAD have no body")
	}
}

// matching gives a string of a certain form.
func (t table) matching(key string, form *regexp.Regexp, what, remedy string) string {
	s := t.string(key)
	if !form.MatchString(s) {
		t.r.failf(t.at(key), remedy, "%s is no %s", quote(s), what)
	}
	return s
}

// statuses gives the ranges of expect_status, sorted and apart.
func (t table) statuses() [][2]int {
	s := t.string("expect_status")
	var out [][2]int
	for part := range strings.SplitSeq(s, ",") {
		first, last, ranged := strings.Cut(strings.TrimSpace(part), "-")
		if !ranged {
			last = first
		}
		lo, err := strconv.Atoi(first)
		hi, err2 := strconv.Atoi(last)
		if err != nil || err2 != nil || lo < 100 || hi > 599 || lo > hi {
			t.r.failf(t.at("expect_status"), `write codes from 100 to 599 and ranges of them, such as "200,204,300-399"`, "%s is neither a status nor a range", quote(part))
			return nil
		}
		out = append(out, [2]int{lo, hi})
	}
	slices.SortFunc(out, func(a, b [2]int) int { return a[0] - b[0] })
	merged := out[:1]
	for _, r := range out[1:] {
		if last := &merged[len(merged)-1]; r[0] <= last[1]+1 {
			last[1] = max(last[1], r[1])
		} else {
			merged = append(merged, r)
		}
	}
	return merged
}

// formatStatuses writes ranges as expect_status has them.
func formatStatuses(ranges [][2]int) string {
	parts := make([]string, len(ranges))
	for i, r := range ranges {
		parts[i] = strconv.Itoa(r[0])
		if r[1] > r[0] {
			parts[i] += "-" + strconv.Itoa(r[1])
		}
	}
	return strings.Join(parts, ",")
}

// readTLS reads the keys of checks that make a TLS handshake.
func (t table) readTLS(h *Health) {
	if h.Type == HealthHTTP && !h.TLS {
		for _, key := range tlsKeys {
			t.refuse(key, "remove it, or write tls = true", "http without tls has no such key")
		}
		return
	}
	if !h.Type.takes("verify") {
		return
	}
	if name := t.string("server_name"); name != "" {
		var bad *mistake
		if h.ServerName, bad = hostName(name); bad != nil {
			t.r.failf(t.at("server_name"), bad.remedy, "%s", bad.msg)
		}
	}
	h.MinDays = int(t.integer("min_days", 3650))
	h.Verify = t.boolean("verify")
	if h.Verify && t.string("server_name") == "" {
		t.r.failf(t.at("verify"), "add server_name with the name in the certificate", "there is no name to verify")
	}
}

const maxDatagram = 1024 // bytes of send and expect

// readUDPCheck reads the keys of udp checks.
func (t table) readUDPCheck(h *Health) {
	if !h.Type.takes("send") {
		return
	}
	h.Send, h.Expect = t.bytes("send"), t.bytes("expect")
}

// bytes gives text, or what is in hexadecimal after "0x"; nil for "".
func (t table) bytes(key string) []byte {
	s := t.string(key)
	if s == "" {
		return nil
	}
	data := []byte(s)
	if digits, ok := strings.CutPrefix(s, "0x"); ok {
		var err error
		if data, err = hex.DecodeString(digits); err != nil || len(data) == 0 {
			t.r.failf(t.at(key), `write two hexadecimal digits a byte after "0x", such as "0x0a1b", or text that does not begin so`,
				"%s is not hexadecimal", quote(s))
			return nil
		}
	}
	if len(data) > maxDatagram {
		t.r.failf(t.at(key), "write fewer", "%d bytes are more than %d", len(data), maxDatagram)
	}
	return data
}

// formatBytes writes text as it is where it is printable.
func formatBytes(data []byte) string {
	printable := !slices.ContainsFunc(data, func(b byte) bool { return b < ' ' || b > '~' })
	if printable && !strings.HasPrefix(string(data), "0x") {
		return string(data)
	}
	return "0x" + hex.EncodeToString(data)
}

// readDNSCheck reads the keys of dns checks.
func (t table) readDNSCheck(h *Health) {
	if !h.Type.takes("query") {
		return
	}
	h.Query = t.string("query")
	if h.Query != "." {
		name, bad := serviceName(h.Query)
		if bad != nil {
			t.r.failf(t.at("query"), bad.remedy+`, or "." for the root`, "%s", bad.msg)
		}
		h.Query = name + "."
	}
	h.QueryType = choice(t, "query_type", "A", "AAAA", "NS", "SOA", "MX", "TXT", "SRV", "PTR", "CNAME")
	h.ExpectRcode = choice(t, "expect_rcode", "NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED")
}
