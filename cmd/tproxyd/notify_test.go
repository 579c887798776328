package main

import (
	"fmt"
	"net"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// manager is a service manager's end of sd_notify(3).
type manager struct {
	t        *testing.T
	address  string
	messages chan string
}

func newManager(t *testing.T) *manager {
	t.Helper()
	m := &manager{t: t, address: filepath.Join(t.TempDir(), "notify"), messages: make(chan string, 1000)}
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: m.address, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for buf := make([]byte, 4096); ; {
			n, err := conn.Read(buf)
			if err != nil {
				return
			}
			m.messages <- string(buf[:n])
		}
	}()
	t.Cleanup(func() {
		_ = conn.Close() // ends the reader
		<-done
	})
	return m
}

// next returns the next message, fields by name. Those of the watchdog are left
// out unless they are wanted.
func (m *manager) next(watchdog bool) map[string]string {
	m.t.Helper()
	deadline := time.After(patience)
	for {
		select {
		case text := <-m.messages:
			fields := map[string]string{}
			for line := range strings.SplitSeq(text, "\n") {
				name, value, _ := strings.Cut(line, "=")
				fields[name] = value
			}
			if (fields["WATCHDOG"] != "") == watchdog {
				return fields
			}
		case <-deadline:
			m.t.Fatal("the service manager hears nothing")
		}
	}
}

// pending empties the queue and returns how many messages of the watchdog were
// in it.
func (m *manager) pending() (pulses int) {
	for {
		select {
		case text := <-m.messages:
			if text == "WATCHDOG=1" {
				pulses++
			}
		default:
			return pulses
		}
	}
}

func (m *manager) options(more ...string) options {
	return options{env: append(more, "NOTIFY_SOCKET="+m.address)}
}

// want fails the test unless a message has exactly these fields.
func (m *manager) want(names ...string) map[string]string {
	m.t.Helper()
	got := m.next(false)
	for _, name := range names {
		if got[name] == "" {
			m.t.Errorf("a message %v has no %s", got, name)
		}
	}
	if len(got) != len(names) {
		m.t.Errorf("a message %v, want only %v", got, names)
	}
	return got
}

func monotonicMicros(t *testing.T) int64 {
	t.Helper()
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		t.Fatal(err)
	}
	return ts.Nano() / 1000
}

// TestNotify follows the life of the daemon as systemd sees it.
func TestNotify(t *testing.T) {
	b := newBed(t)
	m := newManager(t)
	d := b.launch(configuration(`drain_timeout = "1h"`, ""), m.options())
	if got := m.want("READY", "STATUS"); got["STATUS"] == "" || !strings.HasPrefix(got["STATUS"], "2 services, ") {
		t.Errorf("status %q", got["STATUS"])
	}
	for name, target := range targets {
		if err := b.talk(target); err != nil {
			t.Errorf("%s once the daemon has said READY=1: %v", name, err)
		}
	}
	if _, err := d.get("/readyz"); err != nil {
		t.Errorf("/readyz once the daemon has said READY=1: %v", err)
	}

	for _, text := range []string{configuration("", "") + "# other\n", "nonsense"} {
		before := monotonicMicros(t)
		d.configure(text)
		d.signal(unix.SIGHUP)
		got := m.want("RELOADING", "MONOTONIC_USEC")
		at, err := strconv.ParseInt(got["MONOTONIC_USEC"], 10, 64)
		if err != nil || at < before || at > monotonicMicros(t) {
			t.Errorf("MONOTONIC_USEC=%s: %v", got["MONOTONIC_USEC"], err)
		}
		got = m.want("READY", "STATUS")
		if refused := strings.HasPrefix(got["STATUS"], "configuration refused, the old one runs: "+d.config+":1: "); refused != (text == "nonsense") {
			t.Errorf("status %q", got["STATUS"])
		}
	}

	d.configure(configuration(`drain_timeout = "1h"`, ""))
	d.signal(unix.SIGHUP)
	m.want("RELOADING", "MONOTONIC_USEC")
	m.want("READY", "STATUS")
	held := b.open(targets["vip4"])
	d.signal(unix.SIGTERM)
	m.want("STOPPING", "STATUS")
	d.signal(unix.SIGHUP)
	d.logged("not reloading while draining")
	closeAll(t, held)
	if code := d.exit(); code != exitOK {
		t.Errorf("exit code %d", code)
	}
	if len(m.messages) != 0 {
		t.Errorf("a message after STOPPING=1: %q", <-m.messages)
	}
}

// TestNotReady says nothing when it cannot start.
func TestNotReady(t *testing.T) {
	b := newBed(t)
	b.serve(b.Proxy, adminAddress, func(net.Conn) {})
	m := newManager(t)
	b.wantRefused(configuration("", ""), m.options(), exitFailed, "address already in use")
	if len(m.messages) != 0 {
		t.Errorf("a message: %q", <-m.messages)
	}
}

// TestNoManager starts also where the manager's socket is gone.
func TestNoManager(t *testing.T) {
	b := newBed(t)
	b.start(configuration("", ""), options{env: []string{"NOTIFY_SOCKET=" + filepath.Join(t.TempDir(), "none"), "WATCHDOG_USEC=300000"}})
	if err := b.talk(targets["vip4"]); err != nil {
		t.Error(err)
	}
}

// TestWatchdog feeds the watchdog while all is well, and not while the whole
// process is stopped. TestStalledWorker is about one worker.
func TestWatchdog(t *testing.T) {
	b := newBed(t)
	m := newManager(t)
	d := b.start(configuration("", ""), m.watched())
	m.beats()

	d.signal(unix.SIGSTOP)
	waitState(t, d, 'T')
	m.silent("a process that is stopped")
	d.signal(unix.SIGCONT)
	m.beats()
}

// watchdogPeriod is what the service manager asks for: three pulses come in it.
const watchdogPeriod = 300 * time.Millisecond

// watched are the options of a daemon that the manager watches over.
func (m *manager) watched() options {
	return m.options(fmt.Sprintf("WATCHDOG_USEC=%d", watchdogPeriod.Microseconds()))
}

// beats waits for pulses that were not on their way already.
func (m *manager) beats() {
	m.t.Helper()
	m.pending()
	for range 3 {
		m.next(true)
	}
}

// silent wants no pulse for two periods.
func (m *manager) silent(whose string) {
	m.t.Helper()
	m.pending()
	wait(2 * watchdogPeriod)
	if n := m.pending(); n != 0 {
		m.t.Errorf("%d pulses of %s", n, whose)
	}
}

// TestNoWatchdog does not feed what nobody has asked for.
func TestNoWatchdog(t *testing.T) {
	b := newBed(t)
	m := newManager(t)
	d := b.start(configuration("", ""), m.options())
	m.want("READY", "STATUS")
	for range 3 {
		d.wantReload(configuration("", ""), true)
		m.want("RELOADING", "MONOTONIC_USEC")
		m.want("READY", "STATUS")
	}
	if n := m.pending(); n != 0 {
		t.Errorf("%d pulses that nobody asked for", n)
	}
}

// wait lets a time pass in which nothing may happen.
func wait(d time.Duration) { <-time.After(d) }
