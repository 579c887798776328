package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/tproxyd/tproxyd/config"
	"github.com/tproxyd/tproxyd/internal/admin"
	"github.com/tproxyd/tproxyd/internal/logsink"
	"github.com/tproxyd/tproxyd/internal/sys"
	"github.com/tproxyd/tproxyd/proxy"
	"go.uber.org/zap"
)

// server is the running program: the data plane and what surrounds it.
type server struct {
	path     string
	started  time.Time
	log      *zap.Logger
	logs     *logsink.Sink
	access   *accessLog
	proxy    *proxy.Proxy
	registry *prometheus.Registry
	metrics  *daemonMetrics

	config     *config.Config // that runs; of the control goroutine
	adminConns int            // at most, so that they take no descriptor from flows
	stopAdmin  context.CancelFunc
	admin      sync.WaitGroup
	adminErr   chan error
	state      atomic.Pointer[string] // why it is not ready; nil when it is
	lastReload atomic.Pointer[reloadResult]
}

// reloadResult is what became of the last load of the configuration.
type reloadResult struct {
	at  time.Time
	err string
}

const (
	maxAdminConns    = 128
	otherDescriptors = 4 // for reloads, /proc and an admin connection that waits
)

// newServer starts everything c asks for, or nothing.
func newServer(path string, c *config.Config, stdout, stderr io.Writer) (*server, error) {
	p, err := toProxy(c)
	if err != nil {
		return nil, err
	}
	if err := proxy.Check(p); err != nil {
		return nil, err
	}
	d := &server{path: path, started: time.Now(), adminErr: make(chan error, 1)}
	d.setState("starting")
	d.log, d.logs, err = logsink.New(logsink.Config{Level: c.Log.Level, Format: string(c.Log.Format), W: stderr})
	if err != nil {
		return nil, err
	}
	d.access, err = newAccessLog(stdout, func(err error) { d.log.Warn("access log", zap.Error(err)) })
	if err != nil {
		return nil, err
	}
	d.access.set(c.Log.Access)
	workers := c.Daemon.Workers
	if workers == 0 {
		workers = runtime.NumCPU()
	}
	// One more than the workers, which seldom yield, so that the control plane
	// always finds a place to run.
	runtime.GOMAXPROCS(workers + 1)
	nofile, err := sys.RaiseDescriptorLimit()
	if err == nil {
		d.adminConns = int(min(maxAdminConns, max(2, nofile/100)))
		d.proxy, err = proxy.New(proxy.Options{
			Workers: workers, Log: d.log.Named("proxy"), Records: d.access, Spare: d.adminConns + otherDescriptors,
		})
	}
	if err != nil {
		d.closeLogs()
		return nil, err
	}
	d.registry = admin.NewRegistry(version)
	d.metrics = newDaemonMetrics(d)
	d.registry.MustRegister(proxy.NewCollector(d.proxy), d.metrics)
	if err := d.apply(c); err != nil {
		d.close()
		return nil, err
	}
	d.noteReload(nil)
	return d, nil
}

// apply makes c what runs, or changes nothing.
func (d *server) apply(c *config.Config) error {
	p, err := toProxy(c)
	if err != nil {
		return err
	}
	var server *admin.Server
	moved := d.config == nil || d.config.Admin != c.Admin
	if moved && c.Admin.Listen.IsValid() {
		if server, err = d.newAdmin(c.Admin.Listen.String()); err != nil {
			return withOwners(err, nil, nil)
		}
	}
	if err := d.proxy.Apply(p); err != nil {
		if server != nil {
			closeUnused(server)
		}
		return withOwners(err, p.Services, d.proxy.Services())
	}
	if moved {
		d.replaceAdmin(server)
	}
	d.access.set(c.Log.Access)
	if err := d.logs.SetLevel(c.Log.Level); err != nil {
		d.log.Error("log level", zap.Error(err)) // it was validated: cannot happen
	}
	if d.config != nil && (d.config.Daemon.Workers != c.Daemon.Workers || d.config.Log.Format != c.Log.Format) {
		d.log.Warn("daemon.workers and log.format take effect at the next start only")
	}
	for _, w := range c.Warnings {
		d.log.Warn("configuration: " + w)
	}
	d.config = c
	return nil
}

// reload reads the file again. What runs stays if anything is wrong with it.
func (d *server) reload() error {
	c, err := config.Load(d.path)
	if err == nil && reflect.DeepEqual(c, d.config) {
		d.log.Info("configuration reloaded, nothing has changed", zap.String("file", d.path))
		d.noteReload(nil)
		return nil
	}
	if err == nil {
		err = d.apply(c)
	}
	d.noteReload(err)
	if err != nil {
		d.log.Error("configuration refused, the old one stays", zap.String("file", d.path), zap.Error(withHint(err)))
		return err
	}
	d.log.Info("configuration reloaded", zap.String("file", d.path), zap.Int("services", len(c.Services)))
	return nil
}

func (d *server) noteReload(err error) {
	r := reloadResult{at: time.Now()}
	if err != nil {
		r.err = err.Error()
		d.metrics.reloadFailures.Inc()
	}
	d.lastReload.Store(&r)
}

// newAdmin opens the admin server on addr.
func (d *server) newAdmin(addr string) (*admin.Server, error) {
	return admin.New(admin.Config{
		Addr: addr, MaxConns: d.adminConns, Gatherer: d.registry, Log: d.log.Named("admin"), Status: d.status,
		Live: func() error { return d.proxy.Alive(time.Second) },
		Ready: func() error {
			if s := d.state.Load(); s != nil {
				return errors.New(*s)
			}
			return nil
		},
	})
}

// replaceAdmin ends the admin server, if one runs, and runs s, if it is one.
func (d *server) replaceAdmin(s *admin.Server) {
	if d.stopAdmin != nil {
		d.stopAdmin()
		d.stopAdmin = nil
	}
	if s == nil {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	d.stopAdmin = cancel
	d.admin.Add(1)
	go d.runAdmin(ctx, s)
	d.log.Info("admin address open", zap.Stringer("address", s.Addr()))
}

func (d *server) runAdmin(ctx context.Context, s *admin.Server) {
	defer d.admin.Done()
	if err := s.Run(ctx); err != nil {
		select {
		case d.adminErr <- err:
		default:
		}
	}
}

// closeUnused frees the listener of a server that never ran.
func closeUnused(s *admin.Server) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_ = s.Run(ctx) // nothing was served
}

func (d *server) setState(reason string) {
	if reason == "" {
		d.state.Store(nil)
	} else {
		d.state.Store(&reason)
	}
}

// close ends everything; flows that are left are cut.
func (d *server) close() {
	if err := d.proxy.Close(); err != nil {
		d.log.Error("close", zap.Error(err))
	}
	d.replaceAdmin(nil)
	d.admin.Wait()
	d.closeLogs()
}

func (d *server) closeLogs() {
	d.access.close()
	if err := d.logs.Close(); err != nil {
		// Whoever reads the log does not; there is nobody to tell.
		return
	}
}

// status is what the admin server shows.
func (d *server) status() admin.Status {
	l := d.proxy.Limits()
	s := admin.Status{
		Version: version, Started: d.started, UptimeSeconds: time.Since(d.started).Seconds(), PID: os.Getpid(),
		Ready:       true,
		Config:      admin.ConfigStatus{Path: d.path},
		Limits:      admin.Limits{MaxConnections: int(l.MaxConnections), MaxFlows: int(l.MaxFlows), Descriptors: l.Descriptors, MaxPipes: l.MaxPipes},
		Connections: admin.Flows{Active: int(d.proxy.Connections())},
		Flows:       admin.Flows{Active: int(d.proxy.Flows())},
	}
	if reason := d.state.Load(); reason != nil {
		s.Ready, s.ReadyReason = false, *reason
	}
	if r := d.lastReload.Load(); r != nil {
		s.Config.LastReloadTime, s.Config.LastError, s.Config.LastReloadSuccess = r.at, r.err, r.err == ""
	}
	for _, svc := range d.proxy.Services() {
		if svc.Protocol == proxy.UDP {
			s.Flows.Total += svc.Total
		} else {
			s.Connections.Total += svc.Total
		}
		as := admin.Service{
			Name: svc.Name, Mode: svc.Mode.String(), Protocol: svc.Protocol.String(), Source: svc.Source.String(),
			Active: int(svc.Active), Total: svc.Total, Rejected: svc.Rejected, BytesIn: svc.BytesIn, BytesOut: svc.BytesOut,
			Draining: !s.Ready && s.ReadyReason == stateDraining,
		}
		for _, a := range svc.Listen {
			as.Listen = append(as.Listen, a.String())
		}
		for _, b := range svc.Backends {
			address := "original destination"
			if b.Addr.IsValid() {
				address = b.Addr.String()
			}
			as.Backends = append(as.Backends, admin.Backend{Name: b.Name, Address: address, Active: int(b.Active), Total: b.Total, Failed: b.Failed})
		}
		s.Services = append(s.Services, as)
	}
	for _, w := range d.proxy.Workers() {
		s.Workers = append(s.Workers, admin.Worker{ID: w.ID, Connections: int(w.Connections), AcceptPaused: w.Paused})
	}
	return s
}

// banner logs what runs, for a person who reads the log after the fact.
func (d *server) banner() {
	l := d.proxy.Limits()
	d.log.Info("tproxyd is ready", zap.String("version", version), zap.String("config", d.path),
		zap.Int("services", len(d.config.Services)), zap.Int("workers", len(d.proxy.Workers())),
		zap.Int64("max_connections", l.MaxConnections), zap.Int64("max_flows", l.MaxFlows), zap.Uint64("descriptors", l.Descriptors))
}

var errWorker = errors.New("the data plane has failed")

func workerFailed(err error) error { return fmt.Errorf("%w: %w", errWorker, err) }
