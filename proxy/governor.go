package proxy

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/tproxyd/tproxyd/internal/balance"
	"github.com/tproxyd/tproxyd/internal/health"
	"go.uber.org/zap"
)

// governor decides which backends are in use, by what checks, flows and people
// say of them, and gives the pools the outcome. It is control plane: workers
// only put faults into its channel.
type governor struct {
	proxy  *Proxy
	faults chan fault

	mu       sync.Mutex // no worker takes it
	governed map[string]*governed
	timer    *time.Timer
	tap      Tap // may be nil
}

// governed is a service's pools and their backends' health.
type governed struct {
	svc    *service
	groups []*health.Group // by route
	places []place         // by backend
	causes []causes        // by backend
	kept   []bool          // by backend: a person has changed it

	serving Serving
}

// causes are what may have put a backend into its state, for people.
type causes struct{ check, flows string }

// place is where a backend is in its pool's Group.
type place struct{ route, member int }

// fault is what a worker has seen of a backend: as many failures in a row as it
// may have, or the first success after an ejection.
type fault struct {
	service, backend string
	kind             failure // failureNone: a success
}

// failure is what went wrong with a flow's backend: the label of the ejection
// that may come of it.
type failure uint8

const (
	failureNone        failure = iota
	failureConnect             // refused or timed out
	failureReset               // reset before its first byte
	failureUnreachable         // no route to it, or ICMP says so
	failureCount
)

var failureNames = [failureCount]string{"", "connect", "reset", "unreachable"}

func newGovernor(p *Proxy) *governor {
	g := &governor{proxy: p, faults: make(chan fault, 256), governed: map[string]*governed{}, timer: time.NewTimer(time.Hour)}
	g.timer.Stop()
	return g
}

// run takes faults and does what is due, until stop is closed.
func (g *governor) run(stop <-chan struct{}, done *sync.WaitGroup) {
	defer done.Done()
	defer g.timer.Stop()
	for {
		select {
		case f := <-g.faults:
			g.fault(f)
		case <-g.timer.C:
			g.tick()
		case <-stop:
			return
		}
	}
}

// prepare makes the pools of services, which are about to be served, go on
// where those of before are.
func (g *governor) prepare(services []*service) {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := time.Now()
	next := map[string]*governed{}
	for _, svc := range services {
		n := newGoverned(svc, now)
		next[svc.Name] = n
		var changes []health.Transition
		if old := g.governed[svc.Name]; old != nil {
			changes = n.adopt(old, g.proxy.log, now)
		}
		g.publish(n, changes)
	}
	g.governed = next
	g.arm()
}

func newGoverned(svc *service, now time.Time) *governed {
	n := &governed{svc: svc, causes: make([]causes, len(svc.Backends)), kept: make([]bool, len(svc.Backends))}
	members := make([][]health.Member, len(svc.Routes)+1)
	for _, b := range svc.Backends {
		n.places = append(n.places, place{b.Route, len(members[b.Route])})
		members[b.Route] = append(members[b.Route], health.Member{Name: b.Name, Weight: b.Weight, Backup: b.Backup})
	}
	for _, m := range members {
		n.groups = append(n.groups, health.NewGroup(svc.Health, m, now))
	}
	return n
}

// adopt has n go on where old ended. What people changed at run time stays,
// unless the file has changed that backend.
func (n *governed) adopt(old *governed, log *zap.Logger, now time.Time) []health.Transition {
	var changes []health.Transition
	for route, group := range n.groups {
		for before, oldGroup := range old.groups {
			if old.svc.routeName(uint16(before)) == n.svc.routeName(uint16(route)) {
				changes = append(changes, n.inRoute(route, group.Adopt(oldGroup, true, now))...)
			}
		}
	}
	for i, b := range n.svc.Backends {
		was := slices.IndexFunc(old.svc.Backends, func(o Backend) bool { return o.Name == b.Name })
		if was < 0 {
			continue
		}
		n.causes[i] = old.causes[was]
		if !old.kept[was] {
			continue
		}
		fields := []zap.Field{zap.String("service", n.svc.Name), zap.String("backend", b.Name)}
		o := old.svc.Backends[was]
		stays := old.svc.routeName(uint16(o.Route)) == n.svc.routeName(uint16(b.Route))
		o.Route, b.Route = 0, 0 // numbers, which other routes move
		if o == b && stays {
			n.kept[i] = true
			log.Info("what was changed at run time about a backend outlives the reload", fields...)
			continue
		}
		group, p := n.group(i), n.places[i]
		changes = append(changes, n.inRoute(p.route, group.SetWeight(p.member, b.Weight, now))...)
		changes = append(changes, n.inRoute(p.route, group.SetAdmin(p.member, health.Ready, now))...)
		log.Info("the file has changed a backend: what was changed at run time about it no longer holds", fields...)
	}
	return changes
}

func (n *governed) group(i int) *health.Group { return n.groups[n.places[i].route] }

// inRoute gives the members of changes, which are of one route, their numbers
// as backends of the service.
func (n *governed) inRoute(route int, changes []health.Transition) []health.Transition {
	for c := range changes {
		changes[c].Member = slices.Index(n.places, place{route, changes[c].Member})
	}
	return changes
}

// backend finds a backend by name.
func (g *governor) backend(service, name string) (*governed, int, error) {
	n := g.governed[service]
	if n == nil {
		return nil, 0, fmt.Errorf("%w %q", ErrNoService, service)
	}
	i := slices.IndexFunc(n.svc.Backends, func(b Backend) bool { return b.Name == name })
	if i < 0 {
		return nil, 0, fmt.Errorf("%w %q in service %q", ErrNoBackend, name, service)
	}
	return n, i, nil
}

// fault takes what a worker has seen.
func (g *governor) fault(f fault) {
	g.mu.Lock()
	defer g.mu.Unlock()
	n, i, err := g.backend(f.service, f.backend)
	if err != nil {
		return // a reload has removed it
	}
	now, p := time.Now(), n.places[i]
	if f.kind == failureNone {
		g.apply(n, p.route, n.group(i).Recover(p.member, now))
		return
	}
	changes := n.group(i).Fail(p.member, now)
	for _, c := range changes {
		if c.Member == p.member && c.To == health.StateEjected {
			n.causes[i].flows = fmt.Sprintf("%d flows in a row failed, the last by %s", n.svc.Health.Failures, failureNames[f.kind])
			t := n.svc.stats.backend(f.backend)
			t.ejections[f.kind].Add(1)
			t.proving.Store(true)
		}
	}
	g.apply(n, p.route, changes)
}

// tick does what is due.
func (g *governor) tick() {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := time.Now()
	for _, n := range g.governed {
		for route, group := range n.groups {
			if next := group.Next(); !next.IsZero() && !next.After(now) {
				g.apply(n, route, group.Tick(now))
			}
		}
	}
	g.arm()
}

// arm sets the timer for what is due next.
func (g *governor) arm() {
	var first time.Time
	for _, n := range g.governed {
		for _, group := range n.groups {
			if next := group.Next(); !next.IsZero() && (first.IsZero() || next.Before(first)) {
				first = next
			}
		}
	}
	if first.IsZero() {
		g.timer.Stop()
	} else {
		g.timer.Reset(time.Until(first))
	}
}

// apply publishes what changes of a route come to.
func (g *governor) apply(n *governed, route int, changes []health.Transition) {
	g.publish(n, n.inRoute(route, changes))
	g.arm()
}

// publish makes the state of n what workers go by, and tells of changes.
func (g *governor) publish(n *governed, changes []health.Transition) {
	effective := make([][]balance.State, len(n.groups))
	for route, group := range n.groups {
		effective[route] = group.Effective()
	}
	was := n.serving
	err := n.svc.pool.Update(func(states []balance.State) {
		for i, p := range n.places {
			states[i] = effective[p.route][p.member]
		}
		n.serving = n.svc.serves(states)
	})
	if err != nil { // weights are in their bounds
		g.proxy.log.Error("backend states not published", zap.String("service", n.svc.Name), zap.Error(err))
	}
	if n.serving != was && g.proxy.serving != nil {
		g.proxy.serving()
	}
	for _, c := range changes {
		g.tell(n, c)
		if c.To.Gone() && n.svc.CutOnDown {
			g.proxy.cutBackend(n.svc.stats, c.Name)
		}
	}
	if n.svc.QueueSize > 0 {
		for _, w := range g.proxy.workers {
			w.loop.Post(func() { w.wakeAll(n.svc.stats) })
		}
	}
}

// tell writes a change to the log, and tells the tap of it.
func (g *governor) tell(n *governed, c health.Transition) {
	log := g.proxy.log.Info
	if !c.To.Serves() && c.Cause != health.ByAdmin && c.Cause != health.ByConfig {
		log = g.proxy.log.Warn
	}
	log("backend is now "+c.To.String(), zap.String("service", n.svc.Name), zap.String("backend", c.Name),
		zap.Stringer("was", c.From), zap.String("cause", string(c.Cause)), zap.String("detail", n.why(c.Member)))
	if g.tap == nil {
		return
	}
	e := TapEvent{Time: time.Now(), Kind: TapHealth, Service: n.svc.Name, Backend: c.Name}
	if c.To == health.StateEjected {
		e.Kind = TapEjected
	}
	if e.Text = fmt.Sprintf("%v, was %v, by %s", c.To, c.From, c.Cause); n.why(c.Member) != "" {
		e.Text += ": " + n.why(c.Member)
	}
	g.tap.Event(&e)
}

// CheckResult is the outcome of an active check of a backend; detail is for
// people. Of a backend that is not there it is ignored: a reload may be faster
// than a check.
func (p *Proxy) CheckResult(service, backend string, ok bool, detail string) {
	g := p.governor
	g.mu.Lock()
	defer g.mu.Unlock()
	n, i, err := g.backend(service, backend)
	if err != nil {
		return
	}
	at, group := n.places[i], n.group(i)
	if !ok {
		n.causes[i].check = detail
	}
	changes := group.Check(at.member, ok, time.Now())
	if group.Healthy(at.member) && !group.Changing(at.member) {
		n.causes[i].check = ""
	}
	// Most results change nothing. While something is under way, such as a slow
	// start, the time that has passed may.
	if len(changes) > 0 || !group.Next().IsZero() {
		g.apply(n, at.route, changes)
	}
}

// Paused reports whether a backend is not to be checked, as a person has taken
// it out.
func (p *Proxy) Paused(service, backend string) bool {
	g := p.governor
	g.mu.Lock()
	defer g.mu.Unlock()
	n, i, err := g.backend(service, backend)
	return err == nil && n.group(i).Admin(n.places[i].member) == health.Maintenance
}

// Changing reports whether checks of a backend have begun to disagree with its
// state, which is when they should come faster.
func (p *Proxy) Changing(service, backend string) bool {
	g := p.governor
	g.mu.Lock()
	defer g.mu.Unlock()
	n, i, err := g.backend(service, backend)
	return err == nil && n.group(i).Changing(n.places[i].member)
}

// What SetBackend cannot do.
var (
	ErrNoService = errors.New("no such service")
	ErrNoBackend = errors.New("no such backend")
)

// BackendChange is what is to change about a backend at run time.
type BackendChange struct {
	Weight  *int // 0 to balance.MaxWeight; nil: as it is
	Default bool // the weight is to be the configured one again
	Admin   *health.Admin
}

// SetBackend changes a backend at run time.
func (p *Proxy) SetBackend(service, backend string, c BackendChange) error {
	g := p.governor
	g.mu.Lock()
	defer g.mu.Unlock()
	n, i, err := g.backend(service, backend)
	if err != nil {
		return err
	}
	group, at, now := n.group(i), n.places[i], time.Now()
	var changes []health.Transition
	switch {
	case c.Default:
		changes = group.SetWeight(at.member, n.svc.Backends[i].Weight, now)
	case c.Weight != nil:
		changes = group.SetWeight(at.member, *c.Weight, now)
	}
	if c.Admin != nil {
		changes = append(changes, group.SetAdmin(at.member, *c.Admin, now)...)
	}
	n.kept[i] = group.Weight(at.member) != n.svc.Backends[i].Weight || group.Admin(at.member) != health.Ready
	g.proxy.log.Info("backend changed by the API", zap.String("service", service), zap.String("backend", backend),
		zap.Int("weight", group.Weight(at.member)), zap.Stringer("admin_state", group.Admin(at.member)))
	g.apply(n, at.route, changes)
	return nil
}
