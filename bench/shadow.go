package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/tproxyd/tproxyd/internal/lab"
	"github.com/tproxyd/tproxyd/internal/sys"
)

// shadowPort is that of the server to which tproxyd-shadow copies flows.
const shadowPort = 9900

// shadowReport is what runShadow answers to stat.
type shadowReport struct {
	Bytes uint64 `json:"bytes"` // since the start of the process
}

// runShadow is a server that reads what comes and answers nothing. It ends with
// its input.
func runShadow(args []string) error {
	if len(args) != 2 {
		return errArguments
	}
	var lc net.ListenConfig
	lc.SetMultipathTCP(false)
	ln, err := lc.Listen(context.Background(), "tcp4", net.JoinHostPort(args[0], args[1]))
	if err != nil {
		return err
	}
	var got atomic.Uint64
	failed := make(chan error, 1)
	go func() { failed <- acceptShadows(ln, &got) }()
	return answerStat(failed, func() any { return shadowReport{Bytes: got.Load()} })
}

func acceptShadows(ln net.Listener, got *atomic.Uint64) error {
	for {
		conn, err := ln.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer conn.Close()
			_ = readShadow(conn.(*net.TCPConn), got) // ended, or given up by the daemon
		}()
	}
}

// readShadow drops what comes in the kernel, as the backend of the load does.
func readShadow(conn *net.TCPConn, got *atomic.Uint64) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	return raw.Read(func(fd uintptr) (done bool) {
		for {
			n, e := sys.Discard(int(fd))
			if e == unix.EAGAIN {
				return false
			}
			if e != 0 || n == 0 {
				return true
			}
			got.Add(uint64(n))
		}
	})
}

// shadowTable is what tproxyd-shadow has beyond tproxyd.
func shadowTable() string {
	return fmt.Sprintf("\n  [service.shadow]\n  address = \"%s:%d\"\n", lab.ServerIP4, shadowPort)
}

// startShadow starts in the server what the subject copies flows to, if it does.
func (m *measurement) startShadow(ctx context.Context) (err error) {
	if !m.subject.shadow {
		return nil
	}
	if m.shadow, err = startPart(ctx, m.lab.Server, m.clientCPU, partShadow, lab.ServerIP4, strconv.Itoa(shadowPort)); err != nil {
		return err
	}
	_, err = m.shadowBytes(ctx, "")
	return err
}

// shadowBytes is what the shadow has got; nothing without one.
func (m *measurement) shadowBytes(ctx context.Context, command string) (uint64, error) {
	if m.shadow == nil {
		return 0, nil
	}
	var r shadowReport
	err := m.shadow.ask(ctx, command, &r)
	return r.Bytes, err
}

// shadowed does the measurement do, and adds how much of what was sent in it the
// shadow got. A copy that was given up costs nothing: its figure would be no
// figure of copying.
func (m *measurement) shadowed(ctx context.Context, do func() (counted, error)) (c counted, copied []sample, err error) {
	before, err := m.shadowBytes(ctx, "stat")
	if err != nil {
		return c, nil, err
	}
	c, err = do()
	after, e := m.shadowBytes(ctx, "stat")
	if m.shadow != nil && c.bytes > 0 {
		copied = []sample{{metricCopied, float64(after-before) / float64(c.bytes), "share"}}
	}
	return c, copied, errors.Join(err, e)
}
