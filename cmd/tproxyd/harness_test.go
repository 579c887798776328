package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tproxyd/tproxyd/internal/lab"
	"github.com/tproxyd/tproxyd/internal/netnstest"
	"github.com/tproxyd/tproxyd/internal/rules"
	"golang.org/x/sys/unix"
)

const (
	patience      = 10 * time.Second // for what should happen at once
	adminAddress  = "127.0.0.1:9180"
	interceptPort = 15001
	port          = "80" // of everything that is served
)

// targets are what a client connects to, by service and family.
var targets = map[string]string{
	"vip4": lab.VIP4 + ":" + port, "vip6": "[" + lab.VIP6 + "]:" + port,
	"intercept4": lab.ForeignIP4 + ":" + port, "intercept6": "[" + lab.ForeignIP6 + "]:" + port,
}

// configHead comes before services, and has room for further [daemon] and
// [log] settings.
const configHead = `[daemon]
workers = 2
%s
[log]
%s
[admin]
listen = "` + adminAddress + `"
`

const webService = `
[[service]]
name = "web"
mode = "vip"
listen = ["` + lab.VIP4 + `:80", "[` + lab.VIP6 + `]:80"]
source = "client-ip"
  [[service.backend]]
  address = "` + lab.ServerIP4 + `:80"
  name = "web4"
  [[service.backend]]
  address = "[` + lab.ServerIP6 + `]:80"
  name = "web6"
`

const egressService = `
[[service]]
name = "egress"
mode = "intercept"
listen = ["0.0.0.0:15001", "[::]:15001"]
source = "client"
`

// configuration has the services web and egress.
func configuration(daemon, log string) string {
	return fmt.Sprintf(configHead, daemon, log) + webService + egressService
}

// bed is a lab with rules and a server that sends back what it gets.
type bed struct {
	*lab.Lab
	t *testing.T
}

func newBed(t *testing.T) *bed {
	t.Helper()
	b := &bed{Lab: netnstest.New(t), t: t}
	err := rules.Apply(rules.Plan{ExemptMark: 0x7470, Intercepts: []rules.Intercept{{
		Name:         "egress",
		DestPrefixes: []netip.Prefix{netip.MustParsePrefix(lab.ForeignNet4), netip.MustParsePrefix(lab.ForeignNet6)},
		ToPort:       interceptPort,
		OnFailure:    rules.Block,
	}}})
	if err != nil {
		t.Fatal(err)
	}
	// A packet to nobody's address is answered each time, so that closed
	// listeners show at once.
	for _, key := range []string{"ipv4/icmp_ratelimit", "ipv6/icmp/ratelimit"} {
		if err := b.Proxy.Sysctl(key, "0"); err != nil {
			t.Fatal(err)
		}
	}
	b.serve(b.Server, ":"+port, echo)
	return b
}

// echo sends back what it gets, by plain copying: the pipes that splice would
// take stay open for a while.
func echo(c net.Conn) {
	_, _ = io.Copy(struct{ io.Writer }{c}, struct{ io.Reader }{c})
}

// serve gives each connection to address to handle until the test is over.
func (b *bed) serve(h *lab.Host, address string, handle func(net.Conn)) {
	b.t.Helper()
	ln, err := h.Listen("tcp", address)
	if err != nil {
		b.t.Fatal(err)
	}
	var running sync.WaitGroup
	running.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			running.Go(func() {
				defer c.Close()
				_ = c.SetDeadline(time.Now().Add(time.Minute))
				handle(c)
			})
		}
	})
	b.t.Cleanup(func() {
		ln.Close()
		running.Wait()
	})
}

// tryDial connects the client to a target.
func (b *bed) tryDial(target string) (*net.TCPConn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	c, err := b.Client.Dial(ctx, "tcp", target)
	if err != nil {
		return nil, err
	}
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	return c.(*net.TCPConn), nil
}

func (b *bed) dial(target string) *net.TCPConn {
	b.t.Helper()
	c, err := b.tryDial(target)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { c.Close() })
	return c
}

// ping sends something over c and wants it back.
func ping(c net.Conn) error {
	const text = "are you there?"
	if _, err := io.WriteString(c, text); err != nil {
		return err
	}
	got := make([]byte, len(text))
	if _, err := io.ReadFull(c, got); err != nil {
		return err
	}
	if string(got) != text {
		return fmt.Errorf("got back %q", got)
	}
	return nil
}

// talk makes a connection of its own for one ping.
func (b *bed) talk(target string) error {
	c, err := b.tryDial(target)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := ping(c); err != nil {
		return fmt.Errorf("%s: %w", target, err)
	}
	return nil
}

// open returns a connection that was used once, so that the daemon has it.
func (b *bed) open(target string) *net.TCPConn {
	b.t.Helper()
	c := b.dial(target)
	if err := ping(c); err != nil {
		b.t.Fatalf("%s: %v", target, err)
	}
	return c
}

// process is a tproxyd run.
type process struct {
	t      *testing.T
	cmd    *lab.Cmd
	config string
	stdout output
	stderr output
	ended  chan struct{}
	err    error // of the process, once ended is closed
}

// options of a daemon. The streams are kept if they are nil.
type options struct {
	confinement
	env            []string
	stdout, stderr *os.File
}

// output keeps what a process writes.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

// Write implements io.Writer.
func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// lines returns the whole lines so far.
func (o *output) lines() []string {
	text := o.String()
	return strings.Split(text[:strings.LastIndexByte(text, '\n')+1], "\n")
}

// start runs the daemon and waits until it is ready. It has to end well.
func (b *bed) start(config string, o options) *process {
	b.t.Helper()
	d := b.launch(config, o)
	netnstest.Eventually(b.t, patience, func() bool {
		select {
		case <-d.ended:
			b.t.Fatalf("tproxyd run: %v\n%s", d.err, &d.stderr)
		default:
		}
		_, err := d.get("/readyz")
		return err == nil
	}, "the daemon is ready")
	return d
}

// launch runs the daemon, which may fail.
func (b *bed) launch(config string, o options) *process {
	b.t.Helper()
	d := &process{t: b.t, config: filepath.Join(b.t.TempDir(), "tproxyd.toml"), ended: make(chan struct{})}
	d.configure(config)
	d.run(b, o)
	return d
}

func (d *process) run(b *bed, o options) {
	d.t.Helper()
	c, err := json.Marshal(o.confinement)
	if err != nil {
		d.t.Fatal(err)
	}
	d.cmd = b.Proxy.Command(context.Background(), "/proc/self/exe", "run", "--config", d.config)
	d.cmd.Env = append(append(os.Environ(), daemonEnv+"="+string(c)), o.env...)
	d.cmd.Stdout, d.cmd.Stderr = &d.stdout, &d.stderr
	if o.stdout != nil {
		d.cmd.Stdout = o.stdout
	}
	if o.stderr != nil {
		d.cmd.Stderr = o.stderr
	}
	if err := d.cmd.Start(); err != nil {
		d.t.Fatal(err)
	}
	go d.wait()
	d.t.Cleanup(d.stop)
}

func (d *process) wait() {
	d.err = d.cmd.Wait()
	close(d.ended)
}

func (d *process) configure(text string) {
	d.t.Helper()
	if err := os.WriteFile(d.config, []byte(text), 0o600); err != nil {
		d.t.Fatal(err)
	}
}

func (d *process) signal(s unix.Signal) {
	d.t.Helper()
	if err := d.cmd.Process.Signal(s); err != nil {
		d.t.Fatal(err)
	}
}

// exit waits for the end, which has to come by itself, and returns the exit
// code.
func (d *process) exit() int {
	d.t.Helper()
	select {
	case <-d.ended:
	case <-time.After(2 * patience):
		d.t.Fatalf("the daemon goes on:\n%s", &d.stderr)
	}
	return d.cmd.ProcessState.ExitCode()
}

// running reports whether the daemon has not ended.
func (d *process) running() bool {
	select {
	case <-d.ended:
		return false
	default:
		return true
	}
}

// stop ends a daemon that runs: by SIGTERM, then by a second one, then for good.
func (d *process) stop() {
	if !d.running() {
		return
	}
	for _, s := range []unix.Signal{unix.SIGTERM, unix.SIGTERM, unix.SIGKILL} {
		_ = d.cmd.Process.Signal(s) // it may be ending
		select {
		case <-d.ended:
		case <-time.After(patience):
		}
	}
	<-d.ended
	if code := d.cmd.ProcessState.ExitCode(); code != exitOK {
		d.t.Errorf("tproxyd run: %v\n%s", d.err, &d.stderr)
	}
}

// terminate ends the daemon by SIGTERM and returns its exit code.
func (d *process) terminate() int {
	d.t.Helper()
	d.signal(unix.SIGTERM)
	return d.exit()
}
