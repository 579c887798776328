package load

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"time"
)

// Probe repeats an exchange until one succeeds, and returns the last error
// when none did within the timeout.
func Probe(target netip.AddrPort, source netip.Addr, timeout time.Duration) error {
	deadline := time.Now().Add(timeout)
	for {
		err := probeOnce(target, source, deadline)
		if err == nil {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("no exchange with %s within %s: %w", target, timeout, err)
		}
		time.Sleep(10 * time.Millisecond) // between tries
	}
}

func probeOnce(target netip.AddrPort, source netip.Addr, deadline time.Time) (err error) {
	try := time.Now().Add(time.Second)
	if deadline.Before(try) {
		try = deadline
	}
	d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(source, 0)), Deadline: try}
	d.SetMultipathTCP(false)
	conn, err := d.Dial("tcp4", target.String())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	if err := conn.SetDeadline(try); err != nil {
		return err
	}
	request, want := newRequest(kindClose), newResponse()
	putID(request[idOffset:], 1)
	putID(want[echoOffset:], 1)
	if _, err := conn.Write(request); err != nil {
		return err
	}
	got, err := io.ReadAll(conn)
	if err != nil {
		return err
	}
	if !bytes.Equal(got, want) {
		return fmt.Errorf("response differs: %q", got)
	}
	return nil
}
