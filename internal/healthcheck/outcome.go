package healthcheck

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// Outcome is how a check ended.
type Outcome uint8

// The outcomes.
const (
	OK             Outcome = iota
	Refused                // RST, or ICMP port unreachable
	Reset                  // the connection ended before the answer
	Timeout                // no answer, or not all of it, in time
	Unreachable            // a router or this host knows no way
	BadAnswer              // it does not speak the protocol, or not as expected
	BadStatus              // of HTTP, or the code of DNS
	BadCertificate         // not valid, or not for long enough
	NoReturnPath           // it answers this host, but not the spoofed address
	Late                   // this process did not run often enough to know
	Failed                 // for a cause on this host
	outcomeCount
)

var outcomeNames = [outcomeCount]string{
	"ok", "refused", "reset", "timeout", "unreachable", "bad_answer", "bad_status",
	"bad_certificate", "no_return_path", "late", "error",
}

// String is the label of metrics.
func (o Outcome) String() string {
	if o < outcomeCount {
		return outcomeNames[o]
	}
	return fmt.Sprintf("outcome %d", uint8(o))
}

// known says whether the outcome tells anything of the backend.
func (o Outcome) known() bool { return o != Late && o != Failed }

// Result is what a check found out about a backend.
type Result struct {
	Service, Backend string
	OK               bool
	Outcome          Outcome
	Detail           string // for a person
	Duration         time.Duration
}

// finding is what one probe found.
type finding struct {
	outcome   Outcome
	detail    string
	connected bool       // there was a socket to speak over
	answered  bool       // a packet came back: the source address of the check is routed here
	from      netip.Addr // this end of the socket
	ends      time.Time  // the certificate; zero: none was seen
}

// fault is an error with an outcome of its own.
type fault struct {
	outcome Outcome
	err     error
}

func (f *fault) Error() string { return f.err.Error() }
func (f *fault) Unwrap() error { return f.err }

func bad(o Outcome, format string, args ...any) error {
	return &fault{o, fmt.Errorf(format, args...)}
}

// outcomeOf finds out what err means. What it does not know about a connection
// that was there is an answer that is no good.
func outcomeOf(err error, connected bool) Outcome {
	if f, ok := errors.AsType[*fault](err); ok {
		return f.outcome
	}
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return BadCertificate
	}
	switch {
	case err == nil:
		return OK
	case errors.Is(err, unix.ECONNREFUSED):
		return Refused
	case errors.Is(err, unix.ECONNRESET), errors.Is(err, unix.EPIPE), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return Reset
	case errors.Is(err, unix.ETIMEDOUT):
		return Timeout
	case errors.Is(err, unix.EHOSTUNREACH), errors.Is(err, unix.ENETUNREACH), errors.Is(err, unix.EHOSTDOWN), errors.Is(err, unix.ENETDOWN):
		return Unreachable
	case connected:
		return BadAnswer
	}
	return Failed
}
