package healthcheck

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"time"
)

// returnPathDetail is the verdict on a backend whose routes are wrong.
const returnPathDetail = "backend does not route replies back through this host"

// check makes one check of t, and if needed the plain one and the first again.
func (t *Target) check(ctx context.Context, now func() time.Time) finding {
	f := t.probe(ctx, now)
	if !t.Spoof.IsValid() || f.outcome != Timeout || f.answered {
		return f
	}
	plain := *t
	plain.Spoof = netip.Addr{}
	p := plain.probe(ctx, now)
	if p.outcome != OK {
		return f
	}
	// A packet may just have been lost, and TCP sends a SYN again only after
	// a second.
	if f = t.probe(ctx, now); f.outcome == Timeout && !f.answered {
		f.outcome = NoReturnPath
		f.detail = returnPathDetail + ": it answers " + p.from.String() + " but not " + t.Spoof.String()
	}
	return f
}

// probe asks the target once.
func (t *Target) probe(parent context.Context, now func() time.Time) (f finding) {
	ctx, err := parent, error(nil)
	fd, pending := -1, true
	if t.Check.Type == TCP {
		fd, pending, err = t.open(&f)
	}
	if pending {
		var stop func()
		ctx, stop = withPatience(parent, t.Check.timeout(), now)
		defer stop()
		if t.Check.Type == TCP {
			err = await(ctx, fd, &f)
		} else {
			err = t.ask(ctx, &f)
		}
	}
	f.outcome = outcomeOf(err, f.connected)
	if cause := context.Cause(ctx); err != nil && cause != nil {
		// What the end of the context did to the socket is no news.
		err, f.outcome = cause, Failed
		switch {
		case errors.Is(cause, errTimeout):
			f.outcome = Timeout
		case errors.Is(cause, errLate):
			f.outcome = Late
		}
	}
	f.answered = f.answered || f.outcome == OK || f.outcome == Refused
	if err != nil {
		f.detail = strings.ToValidUTF8(err.Error(), "?")
	}
	return f
}

// ask makes a check that is more than to connect.
func (t *Target) ask(ctx context.Context, f *finding) error {
	datagrams := t.Check.Type == UDP || t.Check.Type == DNS
	c, err := dial(ctx, t, datagrams)
	if err != nil {
		return err
	}
	defer c.Close()
	f.connected, f.answered = true, !datagrams
	f.from = localAddr(c)
	return t.converse(ctx, c, f)
}

func localAddr(c net.Conn) netip.Addr {
	switch a := c.LocalAddr().(type) {
	case *net.TCPAddr:
		return a.AddrPort().Addr()
	case *net.UDPAddr:
		return a.AddrPort().Addr()
	}
	return netip.Addr{}
}

// converse speaks what the check asks for over c, which it does not close.
func (t *Target) converse(ctx context.Context, c net.Conn, f *finding) error {
	// Every call on the socket ends with the context.
	end := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })
	defer end()
	switch t.Check.Type {
	case TCP: // open and await have it all
	case TLS:
		_, err := handshake(ctx, c, t, f)
		return err
	case HTTP:
		if t.Check.TLS != nil {
			secured, err := handshake(ctx, c, t, f)
			if err != nil {
				return err
			}
			return converseHTTP(secured, t) // not c, which the end of ctx is about
		}
		return converseHTTP(c, t)
	case UDP:
		return converseUDP(c, t.Check.UDP, f)
	case DNS:
		return converseDNS(c, t.Check.DNS, f)
	}
	return nil
}
