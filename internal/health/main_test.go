package health_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/tproxyd/tproxyd/internal/balance"
	"github.com/tproxyd/tproxyd/internal/health"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var start = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// at is a time of a test.
func at(d time.Duration) time.Time { return start.Add(d) }

// members are n primaries a, b, c and so on, of weight 1.
func members(n int) []health.Member {
	all := make([]health.Member, n)
	for i := range all {
		all[i] = health.Member{Name: string(rune('a' + i)), Weight: 1}
	}
	return all
}

// checked is a policy with active checks only.
var checked = health.Policy{Checked: true, Rise: 2, Fall: 3, InitialUp: true}

// ejecting is a policy with ejection only.
var ejecting = health.Policy{Failures: 5, EjectBase: 30 * time.Second, EjectMax: 5 * time.Minute, MaxEjectedPercent: 50}

// move is a Transition without the name.
func move(i int, from, to health.State, cause health.Cause) health.Transition {
	return health.Transition{Member: i, Name: string(rune('a' + i)), From: from, To: to, Cause: cause}
}

func want(t *testing.T, what string, got []health.Transition, want ...health.Transition) {
	t.Helper()
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("%s (-want +got):\n%s", what, d)
	}
}

func wantEffective(t *testing.T, what string, g *health.Group, want ...balance.State) {
	t.Helper()
	if d := cmp.Diff(want, g.Effective()); d != "" {
		t.Errorf("%s (-want +got):\n%s", what, d)
	}
}

func up(weight int) balance.State   { return balance.State{Weight: weight, Up: true} }
func down(weight int) balance.State { return balance.State{Weight: weight} }

// checks gives member i results, + good and - bad, and returns what changed.
func checks(g *health.Group, i int, results string, now time.Time) []health.Transition {
	var changes []health.Transition
	for _, r := range results {
		changes = append(changes, g.Check(i, r == '+', now)...)
	}
	return changes
}
