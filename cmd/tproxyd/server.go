package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/tproxyd/tproxyd/config"
	"github.com/tproxyd/tproxyd/internal/admin"
	"github.com/tproxyd/tproxyd/internal/healthcheck"
	"github.com/tproxyd/tproxyd/internal/logsink"
	"github.com/tproxyd/tproxyd/internal/sys"
	"github.com/tproxyd/tproxyd/proxy"
	"github.com/tproxyd/tproxyd/zcsend/mirror"
	"go.uber.org/zap"
)

// server is the running program: the data plane and what surrounds it.
type server struct {
	path     string
	started  time.Time
	log      *zap.Logger
	logs     *logsink.Sink
	access   *tapRecords
	proxy    *proxy.Proxy
	registry *prometheus.Registry
	metrics  *daemonMetrics

	config     *config.Config // that runs; of the control goroutine
	running    proxy.Config   // what config comes to; likewise
	control    admin.Control  // what the admin servers list and change
	tap        *tapper
	names      *resolver
	announced  *announcements
	mirrors    *mirrors
	checks     *healthcheck.Checks
	stopChecks func()
	admin      *adminServers
	state      atomic.Pointer[string] // why it is not ready; nil when it is
	lastReload atomic.Pointer[reloadResult]
}

// reloadResult is what became of the last load of the configuration.
type reloadResult struct {
	at  time.Time
	err string
}

const (
	maxAdminConns    = 128 // fewer where descriptors are few: flows need them
	otherDescriptors = 4   // for reloads, /proc and an admin connection that waits
	tapDescriptors   = 64  // for rings, and files that are written
)

func tapDescriptorsOf(c *config.Tap) int {
	if c == nil || !c.Enabled {
		return 0
	}
	return tapDescriptors
}

// newServer starts everything c asks for, or nothing.
func newServer(path string, c *config.Config, stdout, stderr io.Writer) (*server, error) {
	p, err := toProxy(c, nil)
	if err != nil {
		return nil, err
	}
	if err := proxy.Check(p); err != nil {
		return nil, err
	}
	d := &server{path: path, started: time.Now()}
	d.setState("starting")
	d.log, d.logs, err = logsink.New(logsink.Config{Level: c.Log.Level, Format: string(c.Log.Format), W: stderr})
	if err != nil {
		return nil, err
	}
	access, err := newAccessLog(stdout, func(err error) { d.log.Warn("access log", zap.Error(err)) })
	if err != nil {
		return nil, err
	}
	d.access = &tapRecords{accessLog: access}
	d.access.set(c.Log.Access)
	workers := c.Daemon.Workers
	if workers == 0 {
		workers = runtime.NumCPU()
	}
	// One more than the workers, which seldom yield, so that the control plane
	// always finds a place to run.
	runtime.GOMAXPROCS(workers + 1)
	nofile, err := sys.RaiseDescriptorLimit()
	adminConns := int(min(maxAdminConns, max(2, nofile/100)))
	d.announced = newAnnouncements(d.log.Named("announce"))
	if err == nil {
		d.proxy, err = proxy.New(proxy.Options{
			Workers: workers, Log: d.log.Named("proxy"), Records: d.access, Serving: d.announced.note,
			Spare: adminConns + otherDescriptors + mirrorDescriptors(c) + tapDescriptorsOf(c.Tap),
		})
	}
	if err != nil {
		d.closeLogs()
		return nil, err
	}
	d.announced.serving = d.proxy.Serving
	d.registry = admin.NewRegistry(version)
	d.metrics = newDaemonMetrics(d)
	d.tap = newTapper(d.proxy, d.access, d.log.Named("tap"))
	d.registry.MustRegister(proxy.NewCollector(d.proxy), d.metrics, d.tap.manager)
	d.control = control{d}
	d.admin = newAdminServers(d.adminConfig(), adminConns)
	d.names = newResolver(d.log)
	d.mirrors = &mirrors{log: d.log.Named("mirror")}
	d.startChecks()
	d.registry.MustRegister(healthcheck.NewCollector(d.checks), d.names, d.announced, mirror.NewCollector(d.mirrors.counted))
	if err := d.change(c); err != nil {
		d.close()
		return nil, err
	}
	d.warn(c)
	d.noteReload(nil)
	return d, nil
}

// change makes c what runs, or changes nothing. What is new of names is asked for
// first.
func (d *server) change(c *config.Config) error {
	err := d.names.set(c, d.config)
	if err == nil {
		d.names.await(c)
		err = d.apply(c)
	}
	if err != nil && d.config != nil {
		err = errors.Join(err, d.names.set(d.config, nil))
	}
	return err
}

// apply makes c what runs, or changes nothing.
func (d *server) apply(c *config.Config) error {
	p, err := toProxy(c, d.names.answers())
	if err != nil {
		return err
	}
	checks, err := checkTargets(c, p)
	if err != nil {
		return err
	}
	move, err := d.admin.prepare(adminSettingsOf(c))
	if err != nil {
		return withOwners(err, nil, nil)
	}
	mirroring, err := d.mirrors.prepare(c, p)
	if err != nil {
		move.discard()
		return err
	}
	undoTap, err := d.tap.apply(c, p)
	if err != nil {
		mirroring.discard()
		move.discard()
		return err
	}
	if err := d.proxy.Apply(p); err != nil {
		undoTap()
		mirroring.discard()
		move.discard()
		return withOwners(err, p.Services, d.proxy.Services())
	}
	move.commit()
	d.announced.set(c)
	mirroring.commit()
	d.tap.commit(c.Tap)
	d.checks.Set(checks)
	if err := d.names.set(c, nil); err != nil {
		d.log.Error("backends by name", zap.Error(err)) // the settings were validated: cannot happen
	}
	d.access.set(c.Log.Access)
	if err := d.logs.SetLevel(c.Log.Level); err != nil {
		d.log.Error("log level", zap.Error(err)) // it was validated: cannot happen
	}
	if d.config != nil && (d.config.Daemon.Workers != c.Daemon.Workers || d.config.Log.Format != c.Log.Format) {
		d.log.Warn("daemon.workers and log.format take effect at the next start only")
	}
	d.config, d.running = c, p
	return nil
}

// warn logs the mistakes in c that leave it usable.
func (d *server) warn(c *config.Config) {
	for _, w := range c.Warnings {
		d.log.Warn("configuration: " + w)
	}
}

// reload reads the file again. What runs stays if anything is wrong with it.
func (d *server) reload() error {
	c, err := loadConfig(d.path)
	if err == nil && reflect.DeepEqual(c, d.config) {
		d.log.Info("configuration reloaded, nothing has changed", zap.String("file", d.path))
		d.noteReload(nil)
		return nil
	}
	if err == nil {
		err = d.change(c)
	}
	d.noteReload(err)
	if err != nil {
		d.log.Error("configuration refused, the old one stays", zap.String("file", d.path), zap.Error(withHint(err)))
		return err
	}
	d.warn(c)
	d.log.Info("configuration reloaded", zap.String("file", d.path), zap.Int("services", len(c.Services)))
	return nil
}

// rename applies what runs once more, as names now stand for other addresses.
func (d *server) rename() {
	if p, err := toProxy(d.config, d.names.answers()); err == nil && reflect.DeepEqual(p, d.running) {
		return // another name for the same, or known when it was read
	}
	if err := d.apply(d.config); err != nil {
		d.log.Error("changed addresses of backends are not used, the old ones stay", zap.Error(withHint(err)))
		return
	}
	d.log.Info("backends by name have changed")
}

func (d *server) noteReload(err error) {
	r := reloadResult{at: time.Now()}
	if err != nil {
		r.err = err.Error()
		d.metrics.reloadFailures.Inc()
	}
	d.lastReload.Store(&r)
}

// adminConfig is what every admin server has in common.
func (d *server) adminConfig() admin.Config {
	return admin.Config{
		Gatherer: d.registry, Log: d.log.Named("admin"), Status: d.status, Control: d.control, Tap: d.tap,
		Live: func() error { return d.proxy.Alive(time.Second) },
		Ready: func() error {
			if s := d.state.Load(); s != nil {
				return errors.New(*s)
			}
			return nil
		},
	}
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
	d.announced.close()
	d.names.close()
	d.mirrors.close()
	d.stopChecks()
	if err := d.proxy.Close(); err != nil {
		d.log.Error("close", zap.Error(err))
	}
	d.tap.close()
	d.access.flush()
	d.admin.close()
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
			QueueLength: int(svc.Queued), Draining: !s.Ready && s.ReadyReason == stateDraining,
		}
		for _, a := range svc.Listen {
			as.Listen = append(as.Listen, a.String())
		}
		if c := svc.Copies; svc.Shadow != nil {
			as.Shadow = &admin.Shadow{
				Address: svc.Shadow.Address.String(), Percent: svc.Shadow.Percent,
				Active: int(c.Active), Total: c.Total, Failed: c.Failed, Mismatches: c.Mismatches, BytesSent: c.Sent,
			}
		}
		for _, r := range svc.Routes {
			as.Routes = append(as.Routes, r.Name)
		}
		for _, b := range svc.Backends {
			as.Backends = append(as.Backends, toBackend(svc, b))
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
