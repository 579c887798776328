package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/tproxyd/tproxyd/config"
	"github.com/tproxyd/tproxyd/internal/announce"
	"github.com/tproxyd/tproxyd/proxy"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"
)

// announceRetry is how long after a failure all is announced again. The
// interface or its network may come later than the daemon.
const announceRetry = 10 * time.Second

// announcements tell neighbours where the addresses of services are that want it,
// from when such a service has a backend in use. All methods but note and those
// of prometheus.Collector are of the control goroutine.
type announcements struct {
	log          *zap.Logger
	serving      func(service string) proxy.Serving
	announce     func(context.Context, announce.Config) error
	changed      chan struct{} // has room for one: serving may have changed
	sent, failed *prometheus.CounterVec

	begun    bool
	services []config.Service // that want it
	running  map[announced]*announcing
	sending  sync.Mutex // one socket at a time
}

// announced is what is announced together: a service's addresses of a family.
type announced struct {
	service string
	v6      bool
}

// announcing is under way, or has been done and still holds.
type announcing struct {
	announce.Config
	stop context.CancelFunc
	done chan struct{}
}

func newAnnouncements(log *zap.Logger) *announcements {
	counter := func(name, help string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, []string{"service"})
	}
	return &announcements{
		log: log, announce: announceOnce, changed: make(chan struct{}, 1), running: map[announced]*announcing{},
		sent:   counter("tproxyd_announcements_total", "Gratuitous ARP requests and unsolicited neighbour advertisements sent."),
		failed: counter("tproxyd_announcement_failures_total", "Attempts to announce the addresses of a service that failed."),
	}
}

func announceOnce(ctx context.Context, c announce.Config) error {
	a, err := announce.New(c)
	if err != nil {
		return err
	}
	return a.Run(ctx)
}

// note is told when the backends in use have changed.
func (a *announcements) note() {
	select {
	case a.changed <- struct{}{}:
	default:
	}
}

// begin announces what there is to announce, now that the daemon is ready.
func (a *announcements) begin() {
	a.begun = true
	a.update()
}

// set makes the services of c those that are announced.
func (a *announcements) set(c *config.Config) {
	a.services = nil
	for _, s := range c.Services {
		if s.Announce {
			a.services = append(a.services, s)
			a.sent.WithLabelValues(s.Name)
			a.failed.WithLabelValues(s.Name)
		}
	}
	a.update()
}

// close ends announcing. None is sent after it has returned.
func (a *announcements) close() {
	a.begun = false
	a.update()
}

// update begins what is not announced and ought to be, and ends the reverse.
func (a *announcements) update() {
	due := a.due()
	for what, r := range a.running {
		if c, ok := due[what]; ok && slices.Equal(c.Addresses, r.Addresses) && slices.Equal(c.Interfaces, r.Interfaces) {
			delete(due, what)
			continue
		}
		r.stop()
		<-r.done
		delete(a.running, what)
	}
	for what, c := range due {
		ctx, stop := context.WithCancel(context.Background())
		r := &announcing{Config: c, stop: stop, done: make(chan struct{})}
		a.running[what] = r
		go a.run(ctx, what.service, r)
	}
}

// due is what ought to be announced.
func (a *announcements) due() map[announced]announce.Config {
	all := map[announced]announce.Config{}
	if !a.begun {
		return all
	}
	for _, s := range a.services {
		serving := a.serving(s.Name)
		for v6, serves := range map[bool]bool{false: serving.IPv4, true: serving.IPv6} {
			if c := toAnnounce(s, v6); serves && len(c.Addresses) > 0 {
				all[announced{s.Name, v6}] = c
			}
		}
	}
	return all
}

// toAnnounce is the addresses of a service and a family.
func toAnnounce(s config.Service, v6 bool) announce.Config {
	var c announce.Config
	if s.AnnounceInterface != "" {
		c.Interfaces = []string{s.AnnounceInterface}
	}
	own := map[netip.Addr]bool{}
	for _, l := range s.Listen {
		if l.Addr().Is6() == v6 {
			own[l.Addr()] = true
		}
	}
	c.Addresses = slices.SortedFunc(maps.Keys(own), netip.Addr.Compare)
	return c
}

// run announces r until that has succeeded or is to stop.
func (a *announcements) run(ctx context.Context, service string, r *announcing) {
	defer close(r.done)
	c, last := r.Config, ""
	c.Sent, c.Sending = a.sent.WithLabelValues(service).Inc, &a.sending
	log := a.log.With(zap.String("service", service), zap.Stringers("addresses", c.Addresses))
	for {
		err := a.announce(ctx, c)
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			log.Info("addresses announced to neighbours")
			return
		}
		a.failed.WithLabelValues(service).Inc()
		if text := err.Error(); text != last {
			last = text
			log.Error("addresses are not announced, neighbours may look for them elsewhere; traffic goes on, and it is tried again",
				zap.Duration("every", announceRetry), zap.Error(withAnnounceHint(err)))
		}
		select {
		case <-time.After(announceRetry):
		case <-ctx.Done():
			return
		}
	}
}

// withAnnounceHint adds what to do about err, an error of announcing.
func withAnnounceHint(err error) error {
	if errors.Is(err, unix.EAFNOSUPPORT) {
		return fmt.Errorf("%w; RestrictAddressFamilies= in the unit needs AF_PACKET", err)
	}
	return withHint(err)
}

// Describe implements prometheus.Collector.
func (a *announcements) Describe(ch chan<- *prometheus.Desc) {
	a.sent.Describe(ch)
	a.failed.Describe(ch)
}

// Collect implements prometheus.Collector.
func (a *announcements) Collect(ch chan<- prometheus.Metric) {
	a.sent.Collect(ch)
	a.failed.Collect(ch)
}
