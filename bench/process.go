package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tproxyd/tproxyd/bench/procstat"
	"github.com/tproxyd/tproxyd/internal/lab"
)

const (
	answerTimeout = 20 * time.Second
	endTimeout    = 5 * time.Second
)

// process is a running part or proxy.
type process struct {
	name  string
	cmd   *lab.Cmd
	stdin io.WriteCloser
	lines chan []byte // what it prints, a line each; closed at its end
	said  lastWords   // on standard error
	ended chan struct{}
	err   error // how it ended, once ended is closed
}

// startPart runs this program as one of its parts in a host.
func startPart(ctx context.Context, h *lab.Host, cpu int, args ...string) (*process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	return startPinned(ctx, h, cpu, append([]string{self}, args...)...)
}

// startPinned runs a program in a host on one processor.
func startPinned(ctx context.Context, h *lab.Host, cpu int, command ...string) (*process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	args := append([]string{partPin, strconv.Itoa(cpu)}, command...)
	p := &process{name: command[0], cmd: h.Command(ctx, self, args...), lines: make(chan []byte, 16), ended: make(chan struct{})}
	p.cmd.Stderr = &p.said
	if p.stdin, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", p.name, err)
	}
	go p.follow(out)
	return p, nil
}

// follow reads what the process prints, and waits for its end. What nobody
// asked for is dropped, so that the process never waits for us.
func (p *process) follow(out io.Reader) {
	for scan := bufio.NewScanner(out); scan.Scan(); {
		select {
		case p.lines <- bytes.Clone(scan.Bytes()):
		default:
		}
	}
	close(p.lines)
	p.err = p.cmd.Wait()
	close(p.ended)
}

// ask sends a command, unless it is empty, and decodes the next answer.
func (p *process) ask(ctx context.Context, command string, into any) error {
	if command != "" {
		if _, err := io.WriteString(p.stdin, command+"\n"); err != nil {
			return p.explain(fmt.Errorf("send %q to %s: %w", command, p.name, err))
		}
	}
	timeout := time.NewTimer(answerTimeout)
	defer timeout.Stop()
	select {
	case line, ok := <-p.lines:
		if !ok {
			return p.explain(fmt.Errorf("%s ended instead of answering %q", p.name, command))
		}
		if err := json.Unmarshal(line, into); err != nil {
			return p.explain(fmt.Errorf("decode answer of %s to %q: %w: %q", p.name, command, err, line))
		}
		return nil
	case <-timeout.C:
		return p.explain(fmt.Errorf("%s did not answer %q within %s", p.name, command, answerTimeout))
	case <-ctx.Done():
		return ctx.Err()
	}
}

// explain adds to an error what the process said and how it ended.
func (p *process) explain(err error) error {
	select {
	case <-p.ended:
		if p.err != nil {
			err = fmt.Errorf("%w; %s: %w", err, p.name, p.err)
		}
	default:
	}
	if said := p.said.String(); said != "" {
		err = fmt.Errorf("%w; %s said: %s", err, p.name, said)
	}
	return err
}

// stop asks the process to end, by the end of its input and SIGTERM, and kills
// it if it does not.
func (p *process) stop() error {
	_ = p.stdin.Close() // it may have ended
	for _, sig := range []unix.Signal{unix.SIGTERM, unix.SIGKILL} {
		// The children, too: trafgen's does the sending, and goes on without it.
		tree, err := procstat.Proc.Tree(p.cmd.Process.Pid)
		if err != nil {
			return fmt.Errorf("stop %s: %w", p.name, err)
		}
		if err := p.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
			return fmt.Errorf("stop %s: %w", p.name, err)
		}
		for _, pid := range tree[1:] {
			if err := unix.Kill(pid, sig); err != nil && !errors.Is(err, unix.ESRCH) {
				return fmt.Errorf("stop child of %s: %w", p.name, err)
			}
		}
		select {
		case <-p.ended:
			return nil
		case <-time.After(endTimeout):
		}
	}
	return fmt.Errorf("stop %s: it is still there %s after SIGKILL", p.name, endTimeout)
}

// lastWords keeps the end of what is written to it.
type lastWords struct {
	mu  sync.Mutex
	buf []byte
}

func (w *lastWords) Write(b []byte) (int, error) {
	const limit = 2048
	w.mu.Lock()
	defer w.mu.Unlock()
	w.buf = append(w.buf, b...)
	if n := len(w.buf); n > limit {
		w.buf = append(w.buf[:0], w.buf[n-limit:]...)
	}
	return len(b), nil
}

func (w *lastWords) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return strings.TrimSpace(string(w.buf))
}
