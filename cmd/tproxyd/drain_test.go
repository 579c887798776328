package main

import (
	"errors"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/tproxyd/tproxyd/internal/netnstest"
	"golang.org/x/sys/unix"
)

// unserved reports whether nobody listens on a virtual address: the network has
// no way to it, because it is no host's.
func (b *bed) unserved(target string) bool {
	c, err := b.tryDial(target)
	if err == nil {
		c.Close()
	}
	return errors.Is(err, unix.ENETUNREACH)
}

// wantClosed waits until there are no listeners.
func (b *bed) wantClosed() {
	b.t.Helper()
	netnstest.Eventually(b.t, patience, func() bool { return b.unserved(targets["vip4"]) }, "the listener is closed")
	if !b.unserved(targets["vip6"]) {
		b.t.Error("there is still a listener for IPv6")
	}
}

// wantReset waits for the RST that a connection that is cut ends with.
func wantReset(t *testing.T, c net.Conn) {
	t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(patience))
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("a connection that was cut ends with %v, want a reset", err)
	}
}

func TestDrain(t *testing.T) {
	for _, s := range []unix.Signal{unix.SIGTERM, unix.SIGINT} {
		t.Run(unix.SignalName(s), func(t *testing.T) {
			b := newBed(t)
			d := b.start(configuration(`drain_timeout = "1h"`, ""), options{})
			var held []*net.TCPConn
			for _, target := range targets {
				held = append(held, b.open(target))
			}
			d.signal(s)
			b.wantClosed()
			// Too late for that.
			d.configure(configuration("", "") + "\n[extra]\n")
			d.signal(unix.SIGHUP)
			d.logged("not reloading while draining")
			for _, c := range held {
				if err := ping(c); err != nil {
					t.Errorf("an open connection while draining: %v", err)
				}
			}
			if m := d.metrics(); m.sum("tproxyd_connections_active") != float64(len(held)) || m.sum("tproxyd_config_last_reload_success") != 1 {
				t.Error("while draining, connections were lost or a file was read")
			}
			closeAll(t, held[1:]...)
			if err := ping(held[0]); err != nil || !d.running() {
				t.Errorf("the last connection while draining: %v, running %v", err, d.running())
			}
			closeAll(t, held[0])
			if code := d.exit(); code != exitOK {
				t.Errorf("exit code %d\n%s", code, &d.stderr)
			}
			n := 0
			for _, line := range d.stdout.lines() {
				// Probes for the listener had nothing to say.
				if strings.Contains(line, `"reason":"client_close"`) && !strings.Contains(line, `"bytes_in":0,`) {
					n++
				}
			}
			if n != len(held) {
				t.Errorf("%d records of %d connections:\n%s", n, len(held), &d.stdout)
			}
		})
	}
}

// TestDrainTimeout cuts what is left when the time is over.
func TestDrainTimeout(t *testing.T) {
	b := newBed(t)
	d := b.start(configuration(`drain_timeout = "700ms"`, ""), options{})
	four, six := b.open(targets["intercept4"]), b.open(targets["vip6"])
	d.signal(unix.SIGTERM)
	b.wantClosed()
	for _, c := range []net.Conn{four, six} {
		wantReset(t, c)
	}
	if code := d.exit(); code != exitOK {
		t.Errorf("exit code %d\n%s", code, &d.stderr)
	}
	if n := strings.Count(d.stdout.String(), `"reason":"drain","term":"KD"`); n != 2 {
		t.Errorf("%d records of connections that were cut, want 2:\n%s", n, &d.stdout)
	}
}

// TestSecondSignal does not wait for the drain timeout.
func TestSecondSignal(t *testing.T) {
	b := newBed(t)
	d := b.start(configuration(`drain_timeout = "1h"`, ""), options{})
	held := b.open(targets["vip4"])
	d.signal(unix.SIGTERM)
	d.logged("draining")
	d.signal(unix.SIGTERM)
	wantReset(t, held)
	if code := d.exit(); code != exitOK {
		t.Errorf("exit code %d\n%s", code, &d.stderr)
	}
	if !strings.Contains(d.stdout.String(), `"reason":"drain"`) {
		t.Errorf("no record of the connection that was cut:\n%s", &d.stdout)
	}
}

// TestDrainNothing ends at once, whatever the timeout, and frees the port.
func TestDrainNothing(t *testing.T) {
	b := newBed(t)
	for range 3 {
		d := b.start(configuration(`drain_timeout = "1h"`, ""), options{})
		if err := b.talk(targets["vip4"]); err != nil {
			t.Error(err)
		}
		if code := d.terminate(); code != exitOK {
			t.Errorf("exit code %d\n%s", code, &d.stderr)
		}
		_, err := d.get("/readyz")
		if !errors.Is(err, unix.ECONNREFUSED) || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("the admin address after the end: %v", err)
		}
	}
}
