package discovery

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

const (
	// maxJunk bounds the messages that are looked at for one answer: more means
	// that somebody is guessing.
	maxJunk = 100
	// maxInFlight bounds the queries of all names together.
	maxInFlight = 16
)

// A client asks servers.
type client struct {
	slots  chan struct{} // one per query in flight
	counts *counts
}

// servers are whom to ask, and how patiently.
type servers struct {
	addrs    []netip.AddrPort
	timeout  time.Duration // of one try
	attempts int           // rounds over all servers
}

// ask is the first answer to q that means something. A server that cannot
// be reached or that fails is followed by the next.
func (c *client) ask(ctx context.Context, s *servers, q question) (reply, error) {
	select {
	case c.slots <- struct{}{}:
		defer func() { <-c.slots }()
	case <-ctx.Done():
		return reply{}, ctx.Err()
	}
	var last error
	for range s.attempts {
		for _, server := range s.addrs {
			r, err := c.try(ctx, server, s.timeout, q)
			if ctx.Err() != nil {
				return reply{}, ctx.Err()
			}
			c.counts.add(resultOf(&r, err))
			if err == nil {
				return r, nil
			}
			last = fmt.Errorf("ask %v for %s %v: %w", server, q.name, short(q.kind), err)
		}
	}
	if last == nil {
		last = errors.New("no servers to ask")
	}
	return reply{}, last
}

// try asks one server once: by UDP, without EDNS if it does not know that, and
// by TCP if the answer does not fit.
func (c *client) try(ctx context.Context, server netip.AddrPort, timeout time.Duration, q question) (reply, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	edns := true
	r, err := exchange(ctx, "udp", server, q, edns)
	if err == nil && (r.code == dnsmessage.RCodeFormatError || r.code == dnsmessage.RCodeNotImplemented) {
		edns = false
		r, err = exchange(ctx, "udp", server, q, edns)
	}
	if err == nil && r.truncated {
		r, err = exchange(ctx, "tcp", server, q, edns)
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return reply{}, fmt.Errorf("no answer in %v: %w", timeout, err)
	}
	if err != nil {
		return reply{}, err
	}
	if r.truncated {
		return reply{}, fmt.Errorf("%w: truncated by TCP", ErrMalformed)
	}
	if r.code != dnsmessage.RCodeSuccess && r.code != dnsmessage.RCodeNameError {
		return r, fmt.Errorf("%w (%s)", ErrServer, codeName(r.code))
	}
	return r, nil
}

// exchange sends one message and waits for its answer. Each has a socket of
// its own, connected, so that its port is chosen at random by the kernel and only
// the server is heard.
func exchange(ctx context.Context, network string, server netip.AddrPort, q question, edns bool) (reply, error) {
	var random [2]byte
	_, _ = rand.Read(random[:]) // never fails
	id := binary.BigEndian.Uint16(random[:])
	msg, err := q.pack(id, edns)
	if err != nil {
		return reply{}, err
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, network, server.String())
	if err != nil {
		return reply{}, err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	read := readDatagram
	if network == "tcp" {
		msg = append(binary.BigEndian.AppendUint16(nil, uint16(len(msg))), msg...)
		read = readFrame
	}
	if _, err := conn.Write(msg); err != nil {
		return reply{}, timedOut(ctx, err)
	}
	buf := make([]byte, 1<<16)
	for range maxJunk {
		n, err := read(conn, buf)
		if err != nil {
			return reply{}, timedOut(ctx, err)
		}
		if r, ours, err := q.parse(buf[:n], id); ours {
			return r, err
		}
	}
	return reply{}, fmt.Errorf("%w: %d messages, none with the identifier and the question asked", ErrMalformed, maxJunk)
}

func readDatagram(r io.Reader, buf []byte) (int, error) { return r.Read(buf) }

// readFrame reads a message with its length before it (RFC 1035, section
// 4.2.2). The buffer has room for the longest.
func readFrame(r io.Reader, buf []byte) (int, error) {
	if _, err := io.ReadFull(r, buf[:2]); err != nil {
		return 0, err
	}
	return io.ReadFull(r, buf[:binary.BigEndian.Uint16(buf)])
}

// timedOut is err, or what ended the context if that caused it.
func timedOut(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}
