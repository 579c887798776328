package healthcheck

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"time"
)

// What is read of an answer at most.
const (
	maxHeader   = 64 << 10
	maxBody     = 64 << 10
	maxTLS      = 1 << 20 // with all that goes by it
	maxDatagram = 64 << 10
)

// handshake makes c a TLS connection.
func handshake(ctx context.Context, c net.Conn, t *Target, f *finding) (net.Conn, error) {
	want := t.Check.TLS
	if want == nil {
		want = &TLSCheck{}
	}
	// With an address for a name, crypto/tls verifies it and sends none.
	name := want.ServerName
	if name == "" {
		name = t.Addr.Addr().String()
	}
	s := tls.Client(&limited{Conn: c, left: maxTLS}, &tls.Config{
		ServerName:         name,
		InsecureSkipVerify: !want.Verify, //nolint:gosec // only if the operator does not ask for it: a check sends no secrets
		RootCAs:            want.Roots,
	})
	if err := s.HandshakeContext(ctx); err != nil {
		if v, ok := errors.AsType[*tls.CertificateVerificationError](err); ok && len(v.UnverifiedCertificates) > 0 {
			f.ends = v.UnverifiedCertificates[0].NotAfter
		}
		return nil, fmt.Errorf("shake hands by TLS: %w", err)
	}
	f.ends = s.ConnectionState().PeerCertificates[0].NotAfter
	if left := time.Until(f.ends); want.MinDays > 0 && left < time.Duration(want.MinDays)*24*time.Hour {
		return nil, bad(BadCertificate, "certificate ends in %.1f days, at %s, below min_days %d", left.Hours()/24, f.ends.UTC().Format(time.RFC3339), want.MinDays)
	}
	return s, nil
}

// limited bounds what is read of a connection.
type limited struct {
	net.Conn
	left int
}

var errTooLong = errors.New("the answer is too long")

func (l *limited) Read(b []byte) (int, error) {
	if l.left <= 0 {
		return 0, errTooLong
	}
	n, err := l.Conn.Read(b[:min(len(b), l.left)])
	l.left -= n
	return n, err
}

func converseHTTP(c net.Conn, t *Target) error {
	want := t.Check.HTTP
	if want == nil {
		want = &HTTPCheck{}
	}
	method, path, host := want.Method, want.Path, want.Host
	if method == "" {
		method = http.MethodGet
	}
	if path == "" {
		path = "/"
	}
	if host == "" {
		host = t.Addr.String()
	}
	request := method + " " + path + " HTTP/1.1\r\nHost: " + host + "\r\nUser-Agent: tproxyd-healthcheck\r\nAccept: */*\r\nConnection: close\r\n\r\n"
	if _, err := io.WriteString(c, request); err != nil {
		return fmt.Errorf("send the request: %w", err)
	}
	return judgeHTTP(&limited{Conn: c, left: maxHeader}, method, want)
}

// judgeHTTP reads an answer from c, whose limit holds for the header and is
// raised for the body.
func judgeHTTP(c *limited, method string, want *HTTPCheck) error {
	r := bufio.NewReader(c)
	response, err := http.ReadResponse(r, &http.Request{Method: method})
	// 100 and 103 come before the answer; the limit is that of all headers.
	for err == nil && response.StatusCode >= 100 && response.StatusCode < 200 && response.StatusCode != http.StatusSwitchingProtocols {
		response, err = http.ReadResponse(r, &http.Request{Method: method})
	}
	if err != nil {
		return fmt.Errorf("read the answer: %w", err)
	}
	// The body is not closed: that would wait for the rest of it.
	if !want.accepts(response.StatusCode) {
		return bad(BadStatus, "status %d", response.StatusCode)
	}
	if want.Body == "" {
		return nil
	}
	// Chunks of one byte each cost six more.
	c.left += 7 * maxBody
	return findBody(response.Body, []byte(want.Body))
}

// findBody reads no further than the text.
func findBody(body io.Reader, text []byte) error {
	found := make([]byte, 0, 4096)
	body = io.LimitReader(body, maxBody)
	for {
		found = slices.Grow(found, 1)
		n, err := body.Read(found[len(found):cap(found)])
		// The text may have begun in what was there before.
		from := max(0, len(found)-len(text)+1)
		found = found[:len(found)+n]
		switch {
		case bytes.Contains(found[from:], text):
			return nil
		case errors.Is(err, io.EOF):
			return bad(BadAnswer, "text %q is not in the first %d bytes of the body", text, len(found))
		case err != nil:
			return fmt.Errorf("read the body: %w", err)
		}
	}
}

func (h *HTTPCheck) accepts(status int) bool {
	if len(h.Status) == 0 {
		return status >= 200 && status <= 399
	}
	return slices.ContainsFunc(h.Status, func(r StatusRange) bool { return r.First <= status && status <= r.Last })
}

func converseUDP(c net.Conn, want *UDPCheck, f *finding) error {
	if want == nil {
		want = &UDPCheck{}
	}
	if _, err := c.Write(want.Send); err != nil {
		return fmt.Errorf("send the datagram: %w", err)
	}
	b := make([]byte, maxDatagram)
	n, err := c.Read(b)
	if err != nil {
		return fmt.Errorf("wait for the answer: %w", err)
	}
	f.answered = true
	if !bytes.Contains(b[:n], want.Expect) {
		return bad(BadAnswer, "%q is not in the answer of %d bytes", want.Expect, n)
	}
	return nil
}
