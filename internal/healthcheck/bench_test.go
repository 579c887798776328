package healthcheck

import (
	"bufio"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// acceptorEnv makes the test binary a backend: one of another process, so that
// its time is not counted.
const acceptorEnv = "HEALTHCHECK_ACCEPTOR"

// accept accepts and closes connections until its standard input ends.
func accept() {
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return
	}
	fmt.Fprintln(os.Stdout, ln.Addr())
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				continue
			}
			c.Close()
		}
	}()
	_, _ = bufio.NewReader(os.Stdin).ReadByte()
}

func acceptor(b *testing.B) netip.AddrPort {
	b.Helper()
	cmd := exec.CommandContext(b.Context(), "/proc/self/exe")
	cmd.Env = append(os.Environ(), acceptorEnv+"=1")
	in, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		_ = in.Close()
		_ = cmd.Wait()
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		b.Fatal(err)
	}
	return netip.MustParseAddrPort(strings.TrimSpace(line))
}

// cpu is the time that this process has used, user and system.
func cpu(b *testing.B) time.Duration {
	b.Helper()
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkTwoHundred checks 200 backends each second, b.N times.
func BenchmarkTwoHundred(b *testing.B) {
	const backends = 200
	addr := acceptor(b)
	var n, failed atomic.Int64
	done := make(chan struct{})
	c := New(Options{Report: func(r Result) {
		if !r.OK {
			failed.Add(1)
		}
		if n.Add(1) == int64(backends*b.N) {
			close(done)
		}
	}})
	targets := make([]Target, backends)
	for i := range targets {
		targets[i] = target(fmt.Sprint(i), addr)
		targets[i].Check.Interval = time.Second
	}
	c.Set(targets)
	before, began := cpu(b), time.Now()
	b.ResetTimer()
	begin(b, c)
	<-done
	used, wall := cpu(b)-before, time.Since(began)
	if failed.Load() > 0 {
		b.Errorf("%d checks failed", failed.Load())
	}
	b.ReportMetric(float64(used.Microseconds())/float64(backends*b.N), "cpu-us/check")
	b.ReportMetric(100*used.Seconds()/wall.Seconds(), "%core")
}
