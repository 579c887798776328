package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tproxyd/tproxyd/internal/lab"
	"github.com/tproxyd/tproxyd/internal/rules"
)

const (
	// stepLimit is how long any single exchange may take.
	stepLimit = 5 * time.Second
	// bulkLimit ends a bulk transfer early on a slow machine.
	bulkLimit = 6 * time.Second
	// totalLimit ends the demo, whatever is the matter, and finishLimit its
	// last step.
	totalLimit  = 50 * time.Second
	finishLimit = 8 * time.Second

	defaultBulk = 256 << 20
)

// Config of a demo.
type Config struct {
	// Exe is the daemon; empty is the program that runs.
	Exe string
	// JSON prints the checks as JSON and nothing else.
	JSON bool
	// Hold keeps the lab after the checks until ctx ends or SIGINT or SIGTERM
	// arrives.
	Hold bool
	// Out is where everything is printed; nil is the standard output.
	Out io.Writer
	// Bulk is how many bytes are sent each way; 0 is 256 MiB.
	Bulk int64

	step time.Duration // instead of stepLimit, for tests
}

// Run shows the demo and returns whether all checks were good. An error means
// that it could not be shown.
//
// Outside of a sandbox Run starts the program once more, with the same
// arguments, which has to come back to Run with the same Config. What went
// wrong in there has been printed then.
func Run(ctx context.Context, cfg Config) (ok bool, err error) {
	if cfg.Out == nil {
		cfg.Out = os.Stdout
	}
	if cfg.Bulk == 0 {
		cfg.Bulk = defaultBulk
	}
	if cfg.step == 0 {
		cfg.step = stepLimit
	}
	if cfg.Exe == "" {
		if cfg.Exe, err = os.Executable(); err != nil {
			return false, fmt.Errorf("find own program: %w", err)
		}
	}
	p := newPrinter(cfg)
	if lab.InSandbox() {
		ok, err = runInside(ctx, cfg, p)
	} else {
		var code int
		code, err = reexec(ctx, cfg.Hold)
		if ok = code == 0; err == nil {
			return ok, nil
		}
	}
	if err == nil {
		return ok, p.end()
	}
	if cfg.JSON {
		p.check("lab", false, "%v", err)
		err = errors.Join(err, p.end())
	}
	return false, err
}

// demo is one run, inside the sandbox.
type demo struct {
	cfg     Config
	out     *printer
	lab     *lab.Lab
	servers *servers
	daemon  *daemon

	// dials counts the connections that the client has made, each of which the
	// daemon has to know.
	dials atomic.Uint64
	// questions counts the client's datagrams in the same way. Each is a flow,
	// and gets one answer.
	questions atomic.Uint64

	outside *outside // while held; nil without one
}

func runInside(ctx context.Context, cfg Config, p *printer) (ok bool, err error) {
	ctx, stop := signal.NotifyContext(ctx, unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
	defer stop()
	d := &demo{cfg: cfg, out: p}
	defer func() { err = errors.Join(err, d.close()) }()
	if d.outside, err = takeOutside(); err != nil {
		return false, err
	}
	limited, cancel := context.WithTimeout(ctx, totalLimit)
	defer cancel()
	if err := d.open(limited); err != nil {
		return false, interrupted(ctx, err)
	}
	d.traffic(limited)
	d.fidelity(limited)
	d.reloads(limited)
	d.balance(limited)
	d.zcprobe(limited)
	d.mirror(limited)
	d.captures(limited)
	d.accounts(limited)
	if err := interrupted(ctx, nil); err != nil {
		return false, err
	}
	if cfg.Hold {
		d.hold(ctx)
	}
	// A fresh limit, also after the signal that ended the hold.
	last, cancelLast := context.WithTimeout(context.WithoutCancel(ctx), finishLimit)
	defer cancelLast()
	d.finish(last)
	return p.allGood(), nil
}

// interrupted says why everything fails after a Ctrl-C.
func interrupted(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return errors.New("interrupted")
	}
	return err
}

// open builds the stage: lab, backends, rules, daemon.
func (d *demo) open(ctx context.Context) (err error) {
	d.out.step("A network of its own, in namespaces of this process")
	if d.lab, err = lab.New(lab.Config{}); err != nil {
		return err
	}
	d.out.say("client  %s, %s", lab.ClientIP4, lab.ClientIP6)
	d.out.say("proxy   between client and servers, all traffic passes it")
	d.out.say("servers %s, %s, %s, %s", lab.ServerIP4, lab.Server2IP4, lab.ServerIP6, lab.Server2IP6)
	d.out.say("        and, somewhere in the internet, %s, %s", lab.ForeignIP4, lab.ForeignIP6)
	if d.servers, err = startServers(d.lab.Server); err != nil {
		return err
	}

	d.out.step("nftables rules and policy routing")
	if err := rules.Apply(plan()); err != nil {
		return err
	}
	d.out.say("intercept: TCP and UDP of the client to %s and %s goes to port %d of the proxy,", lab.ForeignNet4, lab.ForeignNet6, interceptPort)
	d.out.say("           and is dropped, not let through, while nobody listens there")
	d.out.say("divert:    what belongs to a transparent socket is delivered to the proxy")

	if err := addMirrorPort(); err != nil {
		return err
	}
	d.out.step("The daemon")
	if d.daemon, err = startDaemon(ctx, d.lab.Proxy, d.cfg.Exe); err != nil {
		return err
	}
	d.out.say("%s run --config %s (pid %d) is ready", d.cfg.Exe, d.daemon.config, d.daemon.pid())
	d.out.say("vip:       %s and [%s], ports 80 (HTTP) and 53 (DNS), over two backends each; no interface has these addresses", lab.VIP4, lab.VIP6)
	d.out.say("intercept: to wherever the client wanted to go")
	return nil
}

func (d *demo) close() error {
	errs := []error{d.outside.close()}
	if d.daemon != nil {
		errs = append(errs, d.daemon.close())
	}
	if d.lab != nil {
		errs = append(errs, rules.Remove(plan()), removeMirrorPort())
	}
	if d.servers != nil {
		d.servers.close()
	}
	if d.lab != nil {
		errs = append(errs, d.lab.Close())
	}
	return errors.Join(errs...)
}

// dial connects from the client.
func (d *demo) dial(ctx context.Context, address string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, d.cfg.step)
	defer cancel()
	c, err := d.lab.Client.Dial(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	d.dials.Add(1)
	return c, c.SetDeadline(time.Now().Add(totalLimit))
}
