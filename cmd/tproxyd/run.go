package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"

	"github.com/coreos/go-systemd/v22/daemon"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"
)

const stateDraining = "draining"

// cmdRun is the daemon.
func cmdRun(ctx context.Context, e env, args []string) error {
	fs := flag.NewFlagSet("run", flag.ContinueOnError)
	path := fs.String("config", defaultConfig, "configuration `file`; SIGHUP reads it again, SIGUSR1 has the recorder of [tap] write")
	if err := parse(e, fs, args); err != nil {
		return err
	}
	// Without this, a closed stdout or stderr would end the process (os/signal).
	signal.Ignore(unix.SIGPIPE)
	// Never stopped: a third signal must not kill what is about to end well.
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, unix.SIGHUP, unix.SIGTERM, unix.SIGINT, unix.SIGUSR1)

	c, err := loadConfig(*path)
	if err != nil {
		return err
	}
	d, err := newServer(*path, c, e.stdout, e.stderr)
	if err != nil {
		return err
	}
	defer d.close()
	// What starting has left behind goes back to the system; the data path
	// leaves next to nothing behind.
	debug.FreeOSMemory()
	d.setState("")
	d.banner()
	d.announced.begin()
	tellSystemd(daemon.SdNotifyReady, d.statusLine())

	stop := make(chan struct{})
	watched := make(chan struct{})
	go watchdog(d, stop, watched)
	defer func() { close(stop); <-watched }()
	return d.serve(ctx, signals)
}

// serve handles signals until one of them ends the program.
func (d *server) serve(ctx context.Context, signals <-chan os.Signal) error {
	for {
		select {
		case s := <-signals:
			switch s {
			case unix.SIGHUP:
			case unix.SIGUSR1:
				d.tap.signalled()
				continue
			default:
				d.drain(signals, s)
				return nil
			}
			tellSystemd(daemon.SdNotifyReloading, monotonic())
			_ = d.reload() // logged, counted and shown; what runs stays
			tellSystemd(daemon.SdNotifyReady, d.statusLine())
		case <-d.names.changed:
			d.rename()
		case <-d.announced.changed:
			d.announced.update()
		case err := <-d.proxy.Failed():
			return workerFailed(err)
		case err := <-d.admin.failed:
			d.log.Error("admin server ended; traffic goes on", zap.Error(err))
		case <-ctx.Done():
			return nil
		}
	}
}

// drain lets flows end by themselves; a second signal ends it at once.
func (d *server) drain(signals <-chan os.Signal, first os.Signal) {
	d.setState(stateDraining)
	d.announced.close() // while the addresses still serve
	tellSystemd(daemon.SdNotifyStopping, "STATUS=draining")
	d.log.Info("draining: listeners are closed, flows may end by themselves",
		zap.Stringer("signal", first), zap.Int64("connections", d.proxy.Connections()), zap.Int64("flows", d.proxy.Flows()),
		zap.Duration("drain_timeout", d.config.Daemon.DrainTimeout))
	ctx, cancel := context.WithCancel(context.Background())
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		d.proxy.Drain(ctx)
	}()
	defer cancel()
	for {
		select {
		case s := <-signals:
			if s == unix.SIGHUP {
				d.log.Warn("not reloading while draining")
				continue
			}
			if s == unix.SIGUSR1 {
				d.tap.signalled()
				continue
			}
			d.log.Warn("second signal: cutting what is left", zap.Stringer("signal", s), zap.Int64("connections", d.proxy.Connections()), zap.Int64("flows", d.proxy.Flows()))
			cancel()
		case <-drained:
			d.log.Info("stopped")
			return
		}
	}
}

// statusLine is what systemctl status shows.
func (d *server) statusLine() string {
	if r := d.lastReload.Load(); r != nil && r.err != "" {
		return "STATUS=configuration refused, the old one runs: " + firstLine(r.err)
	}
	l := d.proxy.Limits()
	line := fmt.Sprintf("STATUS=%d services, up to %d connections", len(d.config.Services), l.MaxConnections)
	if l.MaxFlows > 0 {
		line += fmt.Sprintf(" and %d UDP flows", l.MaxFlows)
	}
	return line
}
