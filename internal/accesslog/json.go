package accesslog

import (
	"net/netip"
	"strconv"
	"time"
	"unicode/utf8"
)

// jsonTime is RFC 3339 with microseconds, always UTC: lines sort as text.
const jsonTime = "2006-01-02T15:04:05.000000Z07:00"

const hexDigits = "0123456789abcdef"

// AppendJSON appends r as one JSON object, without a newline, and allocates
// nothing if dst has room. Every field is always there, but the counts of
// datagrams for udp only, what is known of the legs for tcp only, and what a tap
// saw for flows that one has looked at.
func AppendJSON(dst []byte, r *Record) []byte {
	dst = append(dst, `{"time":"`...)
	dst = r.Time.UTC().AppendFormat(dst, jsonTime)
	dst = append(dst, `","flow_id":"`...)
	dst = AppendFlowID(dst, r.FlowID)
	dst = append(dst, `","service":`...)
	dst = appendString(dst, r.Service)
	dst = append(dst, `,"protocol":`...)
	dst = appendString(dst, r.Protocol)
	dst = append(dst, `,"client":`...)
	dst = appendAddrPort(dst, r.Client)
	dst = append(dst, `,"destination":`...)
	dst = appendAddrPort(dst, r.Destination)
	dst = append(dst, `,"backend":`...)
	dst = appendAddrPort(dst, r.Backend)
	dst = append(dst, `,"backend_name":`...)
	dst = appendString(dst, r.BackendName)
	dst = append(dst, `,"upstream_source":`...)
	dst = appendAddrPort(dst, r.UpstreamSource)
	dst = append(dst, `,"source_policy":`...)
	dst = appendString(dst, r.SourcePolicy)
	dst = append(dst, `,"bytes_in":`...)
	dst = strconv.AppendUint(dst, r.BytesIn, 10)
	dst = append(dst, `,"bytes_out":`...)
	dst = strconv.AppendUint(dst, r.BytesOut, 10)
	if r.Protocol == "udp" {
		dst = append(dst, `,"datagrams_in":`...)
		dst = strconv.AppendUint(dst, r.DatagramsIn, 10)
		dst = append(dst, `,"datagrams_out":`...)
		dst = strconv.AppendUint(dst, r.DatagramsOut, 10)
	}
	dst = append(dst, `,"queue_ms":`...)
	dst = appendMillis(dst, r.Queue)
	dst = append(dst, `,"connect_ms":`...)
	dst = appendMillis(dst, r.Connect)
	dst = append(dst, `,"duration_ms":`...)
	dst = appendMillis(dst, r.Duration)
	dst = append(dst, `,"path_in":`...)
	dst = appendString(dst, r.PathIn)
	dst = append(dst, `,"path_out":`...)
	dst = appendString(dst, r.PathOut)
	dst = append(dst, `,"retries":`...)
	dst = strconv.AppendInt(dst, int64(r.Retries), 10)
	if r.Protocol == "tcp" {
		dst = append(dst, `,"client_rtt_us":`...)
		dst = appendMicros(dst, r.ClientRTT)
		dst = append(dst, `,"upstream_rtt_us":`...)
		dst = appendMicros(dst, r.UpstreamRTT)
		dst = append(dst, `,"client_retrans":`...)
		dst = strconv.AppendInt(dst, int64(r.ClientRetrans), 10)
		dst = append(dst, `,"upstream_retrans":`...)
		dst = strconv.AppendInt(dst, int64(r.UpstreamRetrans), 10)
		dst = append(dst, `,"limited_by":`...)
		dst = appendString(dst, r.LimitedBy)
	}
	if r.Tapped {
		dst = append(dst, `,"tap_client":`...)
		dst = appendPart(dst, r.TapClient)
		dst = append(dst, `,"tap_upstream":`...)
		dst = appendPart(dst, r.TapUpstream)
	}
	dst = append(dst, `,"reason":`...)
	dst = appendString(dst, r.Reason)
	dst = append(dst, `,"term":`...)
	dst = appendString(dst, r.Term)
	return append(dst, '}')
}

// AppendFlowID appends a flow's id as it is written everywhere: 16 hex digits.
func AppendFlowID(dst []byte, v uint64) []byte {
	for shift := 60; shift >= 0; shift -= 4 {
		dst = append(dst, hexDigits[v>>shift&0xf])
	}
	return dst
}

// appendMillis appends d as decimal milliseconds with three places; what lies
// below the microsecond is cut off. It stays a number for a duration that
// never was, -1, so that the field has one type.
func appendMillis(dst []byte, d time.Duration) []byte {
	if d < 0 {
		return append(dst, "-1"...)
	}
	us := d.Microseconds()
	dst = strconv.AppendInt(dst, us/1000, 10)
	frac := us % 1000
	return append(dst, '.', byte('0'+frac/100), byte('0'+frac/10%10), byte('0'+frac%10))
}

// appendMicros appends d as whole microseconds, -1 for a duration that never was.
func appendMicros(dst []byte, d time.Duration) []byte {
	if d < 0 {
		return append(dst, "-1"...)
	}
	return strconv.AppendInt(dst, d.Microseconds(), 10)
}

// appendPart appends a part of a whole with four places. They are cut off, so
// that only the whole is written as such; what is no part is written as 0.
func appendPart(dst []byte, part float64) []byte {
	n := int64(0)
	if part > 0 { // not if it is no number
		n = int64(min(part, 1) * 10000)
	}
	dst = strconv.AppendInt(dst, n/10000, 10)
	return append(dst, '.', byte('0'+n/1000%10), byte('0'+n/100%10), byte('0'+n/10%10), byte('0'+n%10))
}

// appendAddrPort appends a as a JSON string.
func appendAddrPort(dst []byte, a netip.AddrPort) []byte {
	if !a.IsValid() {
		return append(dst, `""`...)
	}
	if a.Addr().Zone() != "" {
		// A zone is an interface name, and those may hold a quote.
		return appendString(dst, a.String())
	}
	dst = append(dst, '"')
	dst = a.AppendTo(dst)
	return append(dst, '"')
}

// appendString appends s as a JSON string (RFC 8259 section 7). Bytes that are
// not UTF-8 become U+FFFD, as encoding/json does it.
func appendString(dst []byte, s string) []byte {
	dst = append(dst, '"')
	for i := 0; i < len(s); {
		c := s[i]
		switch {
		case c == '"' || c == '\\':
			dst = append(dst, '\\', c)
			i++
		case c < ' ' || c == 0x7f:
			dst = append(dst, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&0xf])
			i++
		case c < utf8.RuneSelf:
			dst = append(dst, c)
			i++
		default:
			r, n := utf8.DecodeRuneInString(s[i:])
			dst = utf8.AppendRune(dst, r)
			i += n
		}
	}
	return append(dst, '"')
}
