package main

import (
	"os"
	"strings"
	"testing"

	"github.com/tproxyd/tproxyd/internal/netnstest"
	"golang.org/x/sys/unix"
)

// fullPipe returns a pipe that takes no byte more, and its reader.
func fullPipe(t *testing.T) (r, w *os.File) {
	t.Helper()
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		t.Fatal(err)
	}
	for chunk := make([]byte, 64<<10); len(chunk) > 0; {
		if n, err := unix.Write(fds[1], chunk); err != nil || n < len(chunk) {
			chunk = chunk[:len(chunk)/2] // until not one byte fits
		}
	}
	// The daemon's end is like those of services are: it waits.
	if err := unix.SetNonblock(fds[1], false); err != nil {
		t.Fatal(err)
	}
	return os.NewFile(uintptr(fds[0]), "reader"), os.NewFile(uintptr(fds[1]), "writer")
}

// loseLines makes the daemon log and record so much that some is lost, with
// the relay going on, and checks that it still ends well.
func loseLines(t *testing.T, b *bed, d *process, text string) {
	t.Helper()
	l := b.load()
	netnstest.Eventually(t, 3*patience, func() bool {
		for i := range 200 { // each asks for a line, and all together for a queue
			d.configure(text + strings.Repeat("#", i%2) + "\n")
			d.signal(unix.SIGHUP)
		}
		m := d.metrics()
		return m.sum("tproxyd_log_dropped_total") > 0 && m.sum("tproxyd_access_log_dropped_total") > 0
	}, "lines are lost and counted")
	l.more(t, 100)
	l.end(t)
	if m := d.idle(); m.sum("tproxyd_connections_closed_total", "reason=client_close") != m.sum("tproxyd_connections_total") {
		t.Error("not all connections ended well")
	}
	if _, err := d.get("/healthz"); err != nil {
		t.Error(err)
	}
	if code := d.terminate(); code != exitOK {
		t.Errorf("exit code %d: %v", code, d.err)
	}
}

// TestLogNotRead has one reader of all output that has stopped reading.
func TestLogNotRead(t *testing.T) {
	r, w := fullPipe(t)
	defer func() { _ = r.Close() }()
	defer func() { _ = w.Close() }()
	b := newBed(t)
	text := configuration("", "")
	loseLines(t, b, b.start(text, options{stdout: w, stderr: w}), text)
}

// TestLogClosed has the reader gone: every line is an EPIPE, and with it goes
// SIGPIPE.
func TestLogClosed(t *testing.T) {
	r, w := fullPipe(t)
	closeAll(t, r)
	defer func() { _ = w.Close() }()
	b := newBed(t)
	text := configuration("", "")
	d := b.start(text, options{stdout: w, stderr: w})
	loseLines(t, b, d, text)
}

// TestLogBack loses nothing of what comes after the reader is back.
func TestLogBack(t *testing.T) {
	r, w := fullPipe(t)
	defer func() { _ = r.Close() }()
	defer func() { _ = w.Close() }()
	b := newBed(t)
	d := b.start(configuration("", ""), options{stdout: w})
	for range 20 {
		if err := b.talk(targets["vip4"]); err != nil {
			t.Fatal(err)
		}
	}
	d.idle()
	if err := unix.SetNonblock(int(r.Fd()), false); err != nil {
		t.Fatal(err)
	}
	var got output
	drained := make(chan error, 1)
	go func() {
		_, err := r.WriteTo(&got)
		drained <- err
	}()
	netnstest.Eventually(t, patience, func() bool { return strings.Count(got.String(), `"reason":"client_close"`) == 20 }, "all records come")
	if m := d.metrics(); m.sum("tproxyd_access_log_dropped_total") != 0 {
		t.Error("records count as lost")
	}
	if code := d.terminate(); code != exitOK {
		t.Errorf("exit code %d", code)
	}
	closeAll(t, w)
	if err := <-drained; err != nil {
		t.Error(err)
	}
}
