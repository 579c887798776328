package accesslog

import (
	"net/netip"
	"strconv"
	"time"
)

const (
	// haproxyTime is HAProxy's accept_date, in the location of Record.Time.
	haproxyTime = "02/Jan/2006:15:04:05.000"
	// noServer stands where a server would if none was chosen.
	noServer = "<NOSRV>"
)

// AppendHAProxy appends r as the line of HAProxy's "option tcplog" (section
// 8.2.2 of its manual), without the syslog header and without a newline:
//
//	client_ip:client_port [accept_date] frontend backend/server Tw/Tc/Tt
//	bytes_read term actconn/feconn/beconn/srv_conn/retries srv_queue/backend_queue
//
// The service is both frontend and backend. bytes_read is what went to the
// client. There are no queues of waiting connections, so both read 0. An IPv6
// client stands without brackets, as HAProxy writes it. A flow of udp has the
// same columns: HAProxy has none for datagrams, and a parser wants its number of
// them.
func AppendHAProxy(dst []byte, r *Record) []byte {
	dst = appendIPPort(dst, r.Client)
	dst = append(dst, " ["...)
	dst = r.Time.AppendFormat(dst, haproxyTime)
	dst = append(dst, "] "...)
	dst = appendWord(dst, r.Service)
	dst = append(dst, ' ')
	dst = appendWord(dst, r.Service)
	dst = append(dst, '/')
	dst = appendServer(dst, r)
	dst = append(dst, ' ')
	dst = appendWholeMillis(dst, r.Queue)
	dst = append(dst, '/')
	dst = appendWholeMillis(dst, r.Connect)
	dst = append(dst, '/')
	dst = appendWholeMillis(dst, r.Duration)
	dst = append(dst, ' ')
	dst = strconv.AppendUint(dst, r.BytesOut, 10)
	dst = append(dst, ' ')
	dst = appendWord(dst, r.Term)
	for i, n := range [...]uint32{r.ActConn, r.FeConn, r.BeConn, r.SrvConn} {
		sep := byte('/')
		if i == 0 {
			sep = ' '
		}
		dst = append(dst, sep)
		dst = strconv.AppendUint(dst, uint64(n), 10)
	}
	dst = append(dst, '/')
	dst = strconv.AppendInt(dst, int64(r.Retries), 10)
	return append(dst, " 0/0"...)
}

func appendServer(dst []byte, r *Record) []byte {
	switch {
	case r.BackendName != "":
		return appendWord(dst, r.BackendName)
	case r.Backend.IsValid():
		return withoutZone(r.Backend).AppendTo(dst)
	default:
		return append(dst, noServer...)
	}
}

func appendIPPort(dst []byte, a netip.AddrPort) []byte {
	if !a.IsValid() {
		return append(dst, "-:0"...)
	}
	dst = withoutZone(a).Addr().AppendTo(dst)
	dst = append(dst, ':')
	return strconv.AppendUint(dst, uint64(a.Port()), 10)
}

// withoutZone drops the interface name, which may hold anything.
func withoutZone(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().WithZone(""), a.Port())
}

// appendWholeMillis appends d in milliseconds, -1 if it never came to that.
func appendWholeMillis(dst []byte, d time.Duration) []byte {
	if d < 0 {
		return append(dst, "-1"...)
	}
	return strconv.AppendInt(dst, d.Milliseconds(), 10)
}

// appendWord appends s as one word of a line that is split at blanks and
// slashes. What would break it is written as HAProxy does in captured headers,
// '#' and two hex digits. An empty word is "-".
func appendWord(dst []byte, s string) []byte {
	if s == "" {
		return append(dst, '-')
	}
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c >= 0x7f || c == '#' || c == '/' {
			dst = append(dst, '#', hexDigits[c>>4], hexDigits[c&0xf])
		} else {
			dst = append(dst, c)
		}
	}
	return dst
}
