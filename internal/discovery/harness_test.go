package discovery_test

import (
	"context"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/tproxyd/tproxyd/internal/discovery"
)

// patience is how long a condition may take to come true.
const patience = 30 * time.Second

// A harness runs a Resolver whose waiting the test decides about.
type harness struct {
	t        testing.TB
	resolver *discovery.Resolver
	logs     *observer.ObservedLogs
	waits    chan time.Duration // what it wants to wait
	resume   chan struct{}      // the end of waiting

	mu      sync.Mutex
	now     time.Time
	changes []change
}

type change struct {
	Query     discovery.Query
	Endpoints []discovery.Endpoint
}

// start runs a Resolver of one or more queries.
func start(t testing.TB, cfg discovery.Config, queries ...discovery.Query) *harness {
	t.Helper()
	core, logs := observer.New(zapcore.InfoLevel)
	h := &harness{
		t: t, logs: logs, waits: make(chan time.Duration), resume: make(chan struct{}),
		now: time.Unix(1e9, 0),
	}
	cfg.Log = zap.New(core)
	cfg.Now = func() time.Time {
		h.mu.Lock()
		defer h.mu.Unlock()
		return h.now
	}
	cfg.Wait = h.wait
	cfg.Changed = func(q discovery.Query, e []discovery.Endpoint) {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.changes = append(h.changes, change{q, e})
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = patience
	}
	if cfg.Hosts == "" {
		cfg.Hosts = "/nonexistent"
	}
	r, err := discovery.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	h.resolver = r
	r.Set(queries)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return h
}

func (h *harness) wait(ctx context.Context, _ discovery.Query, d time.Duration) error {
	for _, step := range []func() bool{
		func() bool {
			select {
			case h.waits <- d:
				return true
			case <-ctx.Done():
				return false
			}
		},
		func() bool {
			select {
			case <-h.resume:
				return true
			case <-ctx.Done():
				return false
			}
		},
	} {
		if !step() {
			return ctx.Err()
		}
	}
	return nil
}

// round is the end of a look-up: how long the Resolver wants to wait for the
// next.
func (h *harness) round() time.Duration {
	h.t.Helper()
	select {
	case d := <-h.waits:
		return d
	case <-time.After(patience):
		h.t.Fatal("no look-up ends")
		return 0
	}
}

// again lets the next look-up begin after the time d, and waits for its end.
func (h *harness) again(d time.Duration) time.Duration {
	h.t.Helper()
	h.mu.Lock()
	h.now = h.now.Add(d)
	h.mu.Unlock()
	select {
	case h.resume <- struct{}{}:
	case <-time.After(patience):
		h.t.Fatal("nothing waits")
	}
	return h.round()
}

// expect compares the answer to q.
func (h *harness) expect(q discovery.Query, err error, want ...discovery.Endpoint) discovery.Answer {
	h.t.Helper()
	a := h.resolver.Answers()[q]
	if d := cmp.Diff(want, a.Endpoints, compareAddrs, cmpopts.EquateEmpty()); d != "" {
		h.t.Errorf("%v (-want +got):\n%s", q, d)
	}
	if d := cmp.Diff(err, a.Err, cmpopts.EquateErrors()); d != "" {
		h.t.Errorf("%v: error (-want +got):\n%s", q, d)
	}
	return a
}

var compareAddrs = cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })

// told is the changes since the last call.
func (h *harness) told() []change {
	h.mu.Lock()
	defer h.mu.Unlock()
	told := h.changes
	h.changes = nil
	return told
}

// messages is the log since the last call.
func (h *harness) messages() []string {
	var all []string
	for _, e := range h.logs.TakeAll() {
		all = append(all, e.Message)
	}
	return all
}

// between checks a time that is random in part.
func between(t testing.TB, d, low, high time.Duration) {
	t.Helper()
	if d < low || d > high {
		t.Errorf("waits for %v, want %v to %v", d, low, high)
	}
}

func endpoints(all ...string) []discovery.Endpoint {
	list := make([]discovery.Endpoint, len(all))
	for i, s := range all {
		list[i].Addr = netip.MustParseAddrPort(s)
	}
	return list
}

func write(t testing.TB, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
