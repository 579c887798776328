package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"syscall"

	"golang.org/x/sys/unix"
)

// Cmd is an [exec.Cmd] that runs in a host of the lab and dies with this
// process. Whoever starts it has to wait for it.
type Cmd struct {
	*exec.Cmd

	host     *Host
	release  chan struct{} // closed by Wait
	released chan error
}

// Command prepares a program to run in the host. When ctx ends it is killed.
func (h *Host) Command(ctx context.Context, name string, args ...string) *Cmd {
	c := exec.CommandContext(ctx, name, args...)
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL}
	return &Cmd{Cmd: c, host: h}
}

// Start starts the program. The thread that does so is held until Wait,
// because its end would kill the program: prctl(2), PR_SET_PDEATHSIG.
func (c *Cmd) Start() error {
	if c.release != nil {
		return errors.New("lab: command already started")
	}
	c.release = make(chan struct{})
	c.released = make(chan error, 1)
	started := make(chan error, 1)
	go c.hold(started)
	if err := <-started; err != nil {
		return errors.Join(err, <-c.released)
	}
	return nil
}

func (c *Cmd) hold(started chan<- error) {
	err := onLockedThread(func() error {
		if err := setns(c.host.ns); err != nil {
			started <- fmt.Errorf("enter namespace of the %s: %w", c.host.Name, err)
			return nil
		}
		if err := c.Cmd.Start(); err != nil {
			started <- fmt.Errorf("start in the %s: %w", c.host.Name, err)
			return nil
		}
		started <- nil
		<-c.release
		return nil
	})
	c.released <- err
}

// Wait waits for the program's end, like [exec.Cmd.Wait].
func (c *Cmd) Wait() error {
	if c.release == nil {
		return errors.New("lab: command not started")
	}
	err := c.Cmd.Wait()
	select {
	case <-c.release: // waited before
		return err
	default:
	}
	close(c.release)
	return errors.Join(err, <-c.released)
}

// Run starts the program and waits for it.
func (c *Cmd) Run() error {
	if err := c.Start(); err != nil {
		return err
	}
	return c.Wait()
}

// Output runs the program and returns what it printed. What it printed as
// errors is in the error.
func (c *Cmd) Output() ([]byte, error) {
	var stdout, stderr bytes.Buffer
	c.Stdout, c.Stderr = &stdout, &stderr
	if err := c.Run(); err != nil {
		return stdout.Bytes(), fmt.Errorf("%s: %w: %s", c, err, bytes.TrimSpace(stderr.Bytes()))
	}
	return stdout.Bytes(), nil
}

// CombinedOutput runs the program and returns all that it printed.
func (c *Cmd) CombinedOutput() ([]byte, error) {
	var out bytes.Buffer
	c.Stdout, c.Stderr = &out, &out
	err := c.Run()
	return out.Bytes(), err
}
