package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tproxyd/tproxyd/config"
	"github.com/tproxyd/tproxyd/internal/admin"
	"github.com/tproxyd/tproxyd/proxy"
	"github.com/tproxyd/tproxyd/ringcap/tap"
	"go.uber.org/zap"
)

// tapper is the tap of the daemon: it has the manager run what is configured, tells
// it what the proxy tells, and is what the API asks. Without [tap] it is there and
// does nothing.
type tapper struct {
	log     *zap.Logger
	proxy   *proxy.Proxy
	manager *tap.Manager
	records *tapRecords

	triggers atomic.Pointer[tapTriggers] // nil: there is no recorder

	// Of the control goroutine.
	running tap.Config

	mu   sync.Mutex
	on   context.Context //nolint:containedctx // of the streams while there is a tap; nil: there is none
	stop context.CancelFunc
}

// tapTriggers says what makes the recorder write.
type tapTriggers struct {
	by          []config.Trigger
	rtt         time.Duration // 0: no such trigger
	retransmits int           // likewise
}

func newTapper(p *proxy.Proxy, records *tapRecords, log *zap.Logger) *tapper {
	t := &tapper{log: log, proxy: p, records: records}
	t.manager = tap.New(tap.Options{Log: log, Application: "tproxyd " + version, Completed: records.completed})
	return t
}

// apply makes the tap of c run, or changes nothing. What it returns takes that
// back.
func (t *tapper) apply(c *config.Config, p proxy.Config) (undo func(), err error) {
	cfg, err := toTap(c.Tap, p)
	if err != nil {
		return nil, err
	}
	before := t.running
	if reflect.DeepEqual(cfg, before) {
		return func() {}, nil
	}
	if err := t.manager.Apply(cfg); err != nil {
		return nil, fmt.Errorf("start tap: %w", err)
	}
	t.running = cfg
	return func() {
		if err := t.manager.Apply(before); err != nil {
			t.log.Error("the tap cannot go back to what it was", zap.Error(err))
		}
		t.running = before
	}, nil
}

// commit makes what apply has done seen: flows are told from now on, or no more.
func (t *tapper) commit(c *config.Tap) {
	on := c != nil && c.Enabled
	t.triggers.Store(toTriggers(c))
	t.mu.Lock()
	was := t.on != nil
	switch {
	case on && !was:
		t.on, t.stop = context.WithCancel(context.Background())
	case was && !on:
		t.stop()
		t.on, t.stop = nil, nil
	}
	t.mu.Unlock()
	delay := time.Duration(-1)
	if on {
		delay = c.Retire + c.Settle
	}
	t.records.setDelay(delay)
	if on && !was {
		t.proxy.SetTap(t)
	} else if was && !on {
		t.proxy.SetTap(nil)
	}
}

func toTriggers(c *config.Tap) *tapTriggers {
	if c == nil || !c.Enabled || c.Recorder == nil {
		return nil
	}
	r := c.Recorder
	return &tapTriggers{by: r.Triggers, rtt: r.RTTThreshold, retransmits: r.RetransmitThreshold}
}

// close completes the files. The proxy has ended.
func (t *tapper) close() {
	t.mu.Lock()
	if t.stop != nil {
		t.stop()
		t.on, t.stop = nil, nil
	}
	t.mu.Unlock()
	if err := t.manager.Close(); err != nil {
		t.log.Error("close tap", zap.Error(err))
	}
}

// trigger has the recorder write, if it is to for that reason. It never waits.
func (t *tapper) trigger(why config.Trigger, s tap.Selection) {
	if on := t.triggers.Load(); on != nil && slices.Contains(on.by, why) {
		t.manager.Trigger(string(why), s)
	}
}

// signalled is SIGUSR1.
func (t *tapper) signalled() {
	on := t.triggers.Load()
	if on == nil || !slices.Contains(on.by, config.TriggerSignal) {
		t.log.Warn(`SIGUSR1: nothing to write; it needs [tap.recorder] with "signal" in triggers`)
		return
	}
	if !t.manager.Trigger(string(config.TriggerSignal), tap.Selection{Strays: true}) {
		t.log.Warn("SIGUSR1: too many dumps, this one is not written")
	}
}

// Opened implements proxy.Tap.
func (t *tapper) Opened(f *proxy.TapFlow) {
	flow := toTapFlow(f)
	flow.Client, flow.Destination = f.Peer, f.Local // on the wire
	t.manager.Open(flow)
}

// Dialing implements proxy.Tap.
func (t *tapper) Dialing(f *proxy.TapFlow) { t.manager.Dial(toTapFlow(f)) }

// Dialed implements proxy.Tap.
func (t *tapper) Dialed(f *proxy.TapFlow) { t.manager.Dial(toTapFlow(f)) }

// Failed implements proxy.Tap.
func (t *tapper) Failed(f *proxy.TapFlow) {
	if f.Reason == proxy.ConnectTimeout {
		t.trigger(config.TriggerConnectTimeout, tap.Selection{Flow: f.ID})
	}
}

// Ended implements proxy.Tap.
func (t *tapper) Ended(f *proxy.TapFlow) {
	t.manager.End(f.ID, f.BytesIn, f.BytesOut, f.Reason.String())
	on := t.triggers.Load()
	if on == nil {
		return
	}
	of := tap.Selection{Flow: f.ID}
	switch {
	case f.Reason == proxy.UpstreamReset:
		t.trigger(config.TriggerUpstreamReset, of)
	case on.rtt > 0 && f.UpstreamRTT >= on.rtt:
		t.trigger(config.TriggerRTT, of)
	case on.retransmits > 0 && f.UpstreamRetrans >= on.retransmits:
		t.trigger(config.TriggerRetransmits, of)
	}
}

// Event implements proxy.Tap.
func (t *tapper) Event(e *proxy.TapEvent) {
	text := e.Text
	if e.Missed > 0 {
		text = fmt.Sprintf("%s, and %d more", text, e.Missed)
	}
	t.manager.Event(tap.Event{
		Time: e.Time, Kind: e.Kind.String(), Flow: e.Flow, Service: e.Service, Backend: e.Backend, Client: e.Client, Text: text,
	})
	of := tap.Selection{Services: []string{e.Service}}
	switch e.Kind {
	case proxy.TapEjected:
		t.trigger(config.TriggerEjection, of)
	case proxy.TapHealth:
		t.trigger(config.TriggerHealthChange, of)
	case proxy.TapRefused, proxy.TapConnectFailed:
	}
}

// toTapFlow is what the manager keeps of f.
func toTapFlow(f *proxy.TapFlow) *tap.Flow {
	return &tap.Flow{
		ID: f.ID, Service: f.Service, Backend: f.BackendName, Algorithm: f.Algorithm, Why: f.Why, Policy: f.SourcePolicy,
		Protocol: ipProtocol(f.Protocol), Client: f.Client, Destination: f.Destination, Source: f.UpstreamSource, Upstream: f.Backend,
	}
}

// TapStatus implements admin.Tap.
func (t *tapper) TapStatus() (admin.TapStatus, error) {
	if !t.isOn() {
		return admin.TapStatus{}, admin.ErrNoTap
	}
	stats := t.manager.Stats()
	s := admin.TapStatus{Flows: stats.Flows, Forgotten: stats.Forgotten, Dumps: stats.Dumps, DumpsRefused: stats.DumpsRefused}
	for _, c := range t.manager.List() {
		one := admin.TapCapture{TapCounts: toCounts(c.CaptureStats), Running: c.Running, Directory: c.Directory, Files: c.Files}
		one.Name = c.Capture.Name
		if c.LastError != nil {
			one.LastError = c.LastError.Error()
		}
		s.Captures = append(s.Captures, one)
	}
	for _, v := range stats.Viewers {
		s.Viewers = append(s.Viewers, toCounts(v))
	}
	for _, i := range stats.Interfaces {
		s.Interfaces = append(s.Interfaces, admin.TapInterface{
			Name: i.Name, Recorder: i.Recorder, Packets: i.Packets, Drops: i.Drops, Freezes: i.Freezes, Held: i.Held, Blocks: i.Ring,
		})
	}
	return s, nil
}

func toCounts(c tap.CaptureStats) admin.TapCounts {
	return admin.TapCounts{
		Name: c.Name, Packets: c.Packets, Bytes: c.Bytes, RingDrops: c.RingDrops, Freezes: c.Freezes, SinkDrops: c.SinkDrops,
	}
}

// SetCapture implements admin.Tap.
func (t *tapper) SetCapture(name string, run bool) error {
	if !t.isOn() {
		return admin.ErrNoTap
	}
	set := t.manager.Stop
	if run {
		set = t.manager.Start
	}
	return toTapError(set(name))
}

// Live implements admin.Tap.
func (t *tapper) Live(ctx context.Context, q admin.TapQuery, w io.Writer) error {
	ctx, cancel, s, err := t.begin(ctx, q)
	if err != nil {
		return err
	}
	defer cancel()
	return toTapError(t.manager.Live(ctx, tap.Query{Name: viewerName(q), Selection: s, Wire: q.Wire, Count: q.Count}, w))
}

// Dump implements admin.Tap.
func (t *tapper) Dump(ctx context.Context, q admin.TapQuery, w io.Writer) error {
	ctx, cancel, s, err := t.begin(ctx, q)
	if err != nil {
		return err
	}
	defer cancel()
	if q.Last == 0 {
		q.Last = admin.MaxDumpLast
	}
	_, err = t.manager.Dump(ctx, tap.DumpQuery{Last: q.Last, Selection: s}, w)
	return toTapError(err)
}

func (t *tapper) isOn() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.on != nil
}

// begin gives what a stream of q needs: a context that ends with ctx, or with the
// tap, and what is selected.
func (t *tapper) begin(ctx context.Context, q admin.TapQuery) (context.Context, context.CancelFunc, tap.Selection, error) {
	t.mu.Lock()
	on := t.on
	t.mu.Unlock()
	if on == nil {
		return nil, nil, tap.Selection{}, admin.ErrNoTap
	}
	s, err := toSelection(q)
	if err != nil {
		return nil, nil, s, err
	}
	ctx, cancel := context.WithCancel(ctx)
	release := context.AfterFunc(on, cancel)
	return ctx, func() { release(); cancel() }, s, nil
}

func toTapError(err error) error {
	switch {
	case errors.Is(err, tap.ErrUnknown):
		return admin.ErrNoCapture
	case errors.Is(err, tap.ErrNoRecorder):
		return admin.ErrNoRecorder
	}
	return err
}

// viewerName tells a viewer from others in the status.
func viewerName(q admin.TapQuery) string {
	name := "all services"
	if q.Service != "" {
		name = q.Service
	}
	if q.Flow != 0 {
		name = "flow " + admin.FlowID(q.Flow).String()
	}
	return name
}

func toSelection(q admin.TapQuery) (tap.Selection, error) {
	s := tap.Selection{
		Flow: q.Flow, Filter: q.Filter, Protocol: toIPProtocol(q.Protocol), Strays: q.All,
		Direction: directions[config.Direction(q.Direction)],
	}
	if err := checkFilter(q.Filter); err != nil {
		return s, fmt.Errorf("%w: %w", admin.ErrRefused, err)
	}
	if q.Service != "" {
		s.Services = []string{q.Service}
	}
	if q.Backend != "" {
		s.Backends = []string{q.Backend}
	}
	if q.Client.IsValid() {
		s.Clients = []netip.Prefix{q.Client}
	}
	if q.Headers {
		s.Snap = tap.SnapHeaders
	}
	return s, nil
}
