package discovery

import (
	"context"
	"errors"
	"strings"

	"golang.org/x/net/dns/dnsmessage"
)

// The values of the label result.
const (
	resultOK        = "ok"
	resultNoName    = "nxdomain"
	resultNoData    = "nodata"
	resultServer    = "server-error"
	resultTimeout   = "timeout"
	resultMalformed = "malformed"
	resultNetwork   = "network"
)

var results = []string{
	resultOK, resultNoName, resultNoData, resultServer, resultTimeout, resultMalformed, resultNetwork,
}

// resultOf says in one word what a try ended with.
func resultOf(r *reply, err error) string {
	switch {
	case errors.Is(err, ErrServer):
		return resultServer
	case errors.Is(err, ErrMalformed):
		return resultMalformed
	case errors.Is(err, context.DeadlineExceeded):
		return resultTimeout
	case err != nil:
		return resultNetwork
	case r.code == dnsmessage.RCodeNameError:
		return resultNoName
	case len(r.addrs) == 0 && len(r.services) == 0 && r.tail == "":
		return resultNoData
	}
	return resultOK
}

// codeName is how tools print the code.
func codeName(c dnsmessage.RCode) string {
	switch c {
	case dnsmessage.RCodeFormatError:
		return "FORMERR"
	case dnsmessage.RCodeServerFailure:
		return "SERVFAIL"
	case dnsmessage.RCodeNotImplemented:
		return "NOTIMP"
	case dnsmessage.RCodeRefused:
		return "REFUSED"
	default:
		return c.String()
	}
}

// short is a record type as it stands in zone files.
func short(t dnsmessage.Type) string { return strings.TrimPrefix(t.String(), "Type") }
