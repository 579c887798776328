package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/tproxyd/tproxyd/internal/netnstest"
	"golang.org/x/sys/unix"
)

// TestStalledWorker holds a single worker of two in a system call. Then the
// watchdog is not fed and /healthz says so, with the control plane and the
// other worker at work.
//
// The call is epoll_pwait, in which a worker sleeps. The Go runtime then does
// without the thread; held at any other place, the next stop of the world would
// wait for it, and with it the whole process. There is no traffic here, so the
// worker makes this call in no other way (sys.EpollPoll).
func TestStalledWorker(t *testing.T) {
	strace := netnstest.Need(t, "strace", "strace")
	b := newBed(t)
	m := newManager(t)
	d := b.start(configuration("", ""), m.watched())
	m.beats()
	for range 2 { // it recovers, and can be found again
		resume := b.stall(strace, d.sleeper())
		netnstest.Eventually(t, patience, func() bool {
			_, err := d.get("/healthz")
			return err != nil && strings.HasPrefix(err.Error(), "503: 1 of 2 workers did not turn within")
		}, "/healthz says that a worker is stalled")
		m.silent("a process with a worker that is stalled")
		d.logged("watchdog not fed")
		if _, err := d.get("/metrics"); err != nil {
			t.Errorf("/metrics with a worker that is stalled: %v", err)
		}
		resume()
		m.beats()
		if text, err := d.get("/healthz"); err != nil {
			t.Errorf("/healthz with all workers turning: %q, %v", text, err)
		}
	}
}

// sleeper returns the id of a thread of the daemon that is a worker's. Apart
// from workers only the Go runtime waits for events, for 128 at most.
func (d *process) sleeper() (tid int) {
	d.t.Helper()
	netnstest.Eventually(d.t, patience, func() bool {
		files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/syscall", d.cmd.Process.Pid)) // the pattern is right
		for _, file := range files {
			text, err := os.ReadFile(file) // threads end
			call := strings.Fields(string(text))
			if err == nil && len(call) > 3 && call[0] == strconv.Itoa(unix.SYS_EPOLL_PWAIT) && call[3] != "0x80" {
				tid, err = strconv.Atoi(filepath.Base(filepath.Dir(file)))
				return err == nil
			}
		}
		return false
	}, "a worker sleeps")
	return tid
}

// stall holds a thread when it enters epoll_pwait(2) the next time, until
// resume is called.
func (b *bed) stall(strace string, tid int) (resume func()) {
	b.t.Helper()
	// Longer than any test. The end of strace lets the thread go.
	c := b.Proxy.Command(context.Background(), strace, "-qq", "-o", "/dev/null", "-p", strconv.Itoa(tid),
		"-e", "trace=epoll_pwait", "-e", "inject=epoll_pwait:delay_enter=3600000000")
	var said output
	c.Stderr = &said
	if err := c.Start(); err != nil {
		b.t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = c.Wait() // it was killed
	}()
	resume = func() {
		_ = c.Process.Signal(unix.SIGKILL) // it may have ended
		<-ended
	}
	b.t.Cleanup(resume)
	status := fmt.Sprintf("/proc/%d/status", tid)
	netnstest.Eventually(b.t, patience, func() bool {
		text, err := os.ReadFile(status)
		if err != nil {
			b.t.Fatalf("%v\n%s", err, &said)
		}
		return strings.Contains(string(text), "\nState:\tt ")
	}, "the thread is held")
	return resume
}
