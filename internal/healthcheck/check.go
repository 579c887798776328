package healthcheck

import (
	"crypto/x509"
	"fmt"
	"net/netip"
	"reflect"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// Type is what a check speaks with a backend.
type Type uint8

// The types.
const (
	TCP  Type = iota // connects
	HTTP             // asks for a resource, by TLS if Check.TLS is there
	TLS              // shakes hands
	UDP              // sends a datagram and waits for one
	DNS              // asks a question, over UDP
)

// Check describes the checks of a backend. What the type does not use is nil.
type Check struct {
	Type         Type
	Interval     time.Duration // between the beginnings of checks; 0: 1 s
	FastInterval time.Duration // while Options.Changing says so; 0: Interval
	Jitter       int           // per cent of the interval, plus or minus
	Timeout      time.Duration // of a whole check; 0: 1 s

	HTTP *HTTPCheck
	TLS  *TLSCheck
	UDP  *UDPCheck
	DNS  *DNSCheck
}

// HTTPCheck is a request and what is expected of its answer.
type HTTPCheck struct {
	Method, Path string        // "": GET, /
	Host         string        // "": the address
	Status       []StatusRange // none: 200 to 399
	Body         string        // has to occur in the first 64 KiB; "": any
}

// StatusRange is a range of HTTP status codes, both ends included.
type StatusRange struct{ First, Last int }

// TLSCheck is what is expected of a handshake.
type TLSCheck struct {
	ServerName string // "": none is sent, and the address is verified
	Verify     bool   // chain and name
	MinDays    int    // a certificate that ends sooner fails; 0: never
	Roots      *x509.CertPool
}

// UDPCheck is a datagram and what its answer has to contain.
type UDPCheck struct{ Send, Expect []byte }

// DNSCheck is a question and the code of its answer.
type DNSCheck struct {
	Query string // "": the root
	Type  dnsmessage.Type
	RCode dnsmessage.RCode
}

// Target is a backend to check.
type Target struct {
	Service, Backend string         // together unique
	Addr             netip.AddrPort // that is checked
	Spoof            netip.Addr     // source of the checks; zero: the host's own
	Mark             uint32         // SO_MARK; 0: none
	Check            *Check
}

func (t *Target) key() key { return key{t.Service, t.Backend} }

type key struct{ service, backend string }

func (t *Target) equal(u *Target) bool {
	return t.key() == u.key() && t.Addr == u.Addr && t.Spoof == u.Spoof && t.Mark == u.Mark &&
		reflect.DeepEqual(t.Check, u.Check)
}

const defaultTime = time.Second

func (c *Check) interval(fast bool) time.Duration {
	d := c.Interval
	if d <= 0 {
		d = defaultTime
	}
	if fast && c.FastInterval > 0 {
		d = c.FastInterval
	}
	return d
}

func (c *Check) timeout() time.Duration {
	if c.Timeout <= 0 {
		return defaultTime
	}
	return c.Timeout
}

// queryTypes are those that a health check may want to ask for.
var queryTypes = map[string]dnsmessage.Type{
	"A": dnsmessage.TypeA, "AAAA": dnsmessage.TypeAAAA, "NS": dnsmessage.TypeNS, "SOA": dnsmessage.TypeSOA,
	"MX": dnsmessage.TypeMX, "TXT": dnsmessage.TypeTXT, "CNAME": dnsmessage.TypeCNAME, "PTR": dnsmessage.TypePTR,
	"SRV": dnsmessage.TypeSRV,
}

// rcodes are the codes of RFC 1035, section 4.1.1.
var rcodes = map[string]dnsmessage.RCode{
	"NOERROR": dnsmessage.RCodeSuccess, "FORMERR": dnsmessage.RCodeFormatError, "SERVFAIL": dnsmessage.RCodeServerFailure,
	"NXDOMAIN": dnsmessage.RCodeNameError, "NOTIMP": dnsmessage.RCodeNotImplemented, "REFUSED": dnsmessage.RCodeRefused,
}

// ParseQueryType returns the type that is called so, in any case.
func ParseQueryType(name string) (dnsmessage.Type, error) {
	if t, ok := queryTypes[strings.ToUpper(name)]; ok {
		return t, nil
	}
	return 0, fmt.Errorf("unknown query type %q", name)
}

// rcodeName is what ParseRCode knows c by, and its number where it does not.
func rcodeName(c dnsmessage.RCode) string {
	for name, known := range rcodes {
		if known == c {
			return name
		}
	}
	return strconv.Itoa(int(c))
}

// ParseRCode returns the response code that is called so, in any case.
func ParseRCode(name string) (dnsmessage.RCode, error) {
	if c, ok := rcodes[strings.ToUpper(name)]; ok {
		return c, nil
	}
	return 0, fmt.Errorf("unknown response code %q", name)
}
