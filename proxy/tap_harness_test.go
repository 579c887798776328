package proxy

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/tproxyd/tproxyd/internal/netnstest"
)

// tapKeeper is a Tap that keeps what it is told.
type tapKeeper struct {
	dialing func() // called by Dialing; nil: nothing

	mu     sync.Mutex
	calls  map[uint64][]tapCall // by flow
	events []TapEvent
}

type tapCall struct {
	method string
	TapFlow
}

func newTapKeeper() *tapKeeper { return &tapKeeper{calls: map[uint64][]tapCall{}} }

func (k *tapKeeper) note(method string, f *TapFlow) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.calls[f.ID] = append(k.calls[f.ID], tapCall{method, *f})
}

func (k *tapKeeper) Opened(f *TapFlow) { k.note("Opened", f) }
func (k *tapKeeper) Dialed(f *TapFlow) { k.note("Dialed", f) }
func (k *tapKeeper) Failed(f *TapFlow) { k.note("Failed "+f.Reason.String(), f) }
func (k *tapKeeper) Ended(f *TapFlow)  { k.note("Ended "+f.Reason.String(), f) }

func (k *tapKeeper) Dialing(f *TapFlow) {
	k.note("Dialing "+f.BackendName, f)
	if k.dialing != nil {
		k.dialing()
	}
}

func (k *tapKeeper) Event(e *TapEvent) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.events = append(k.events, *e)
}

// of waits until the flow of a client was told so much, and wants it to be these
// calls.
func (k *tapKeeper) of(t *testing.T, from netip.AddrPort, want ...string) []tapCall {
	t.Helper()
	var got []tapCall
	netnstest.Eventually(t, patience, func() bool {
		k.mu.Lock()
		defer k.mu.Unlock()
		for _, calls := range k.calls {
			if calls[0].Client == from {
				got = slices.Clone(calls)
			}
		}
		return len(got) >= len(want)
	}, fmt.Sprintf("the flow of %v is told %q", from, want))
	var methods []string
	for _, c := range got {
		methods = append(methods, c.method)
	}
	if d := cmp.Diff(want, methods); d != "" {
		t.Fatalf("calls of the flow of %v, -want +got:\n%s", from, d)
	}
	return got
}

// told waits until there are n events, and returns them.
func (k *tapKeeper) told(t *testing.T, n int) []TapEvent {
	t.Helper()
	var got []TapEvent
	netnstest.Eventually(t, patience, func() bool {
		k.mu.Lock()
		defer k.mu.Unlock()
		got = slices.Clone(k.events)
		return len(got) >= n
	}, fmt.Sprintf("%d events", n))
	return got
}

// wantBalance wants every flow to have been opened first and ended last, once.
// Those that live may be without an end.
func (k *tapKeeper) wantBalance(t *testing.T, living bool) {
	t.Helper()
	k.mu.Lock()
	defer k.mu.Unlock()
	for id, calls := range k.calls {
		for i, c := range calls {
			last := i == len(calls)-1
			ended := strings.HasPrefix(c.method, "Ended")
			if (c.method == "Opened") != (i == 0) || ended && !last || last && !ended && !living {
				t.Errorf("flow %x: call %d of %d is %s", id, i, len(calls), c.method)
			}
		}
	}
}

// tapped is newBed with a tap, and without access records.
func tapped(t *testing.T, services ...Service) (*bed, *tapKeeper) {
	t.Helper()
	b := newBedConfig(t, Config{Services: services})
	k := newTapKeeper()
	b.proxy.SetTap(k)
	return b, k
}

// held is newTapKeeper of a tap whose Dialing waits until goOn is called.
func held(t *testing.T) (k *tapKeeper, entered <-chan struct{}, goOn func()) {
	in, out := make(chan struct{}, 8), make(chan struct{})
	goOn = sync.OnceFunc(func() { close(out) })
	t.Cleanup(goOn)
	k = newTapKeeper()
	k.dialing = func() { in <- struct{}{}; <-out }
	return k, in, goOn
}
