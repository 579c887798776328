package health_test

import (
	"testing"
	"time"

	"github.com/tproxyd/tproxyd/internal/health"
)

// everything is a policy with all there is.
var everything = health.Policy{
	Checked: true, Rise: 2, Fall: 2, InitialUp: true,
	Failures: 5, EjectBase: 30 * time.Second, EjectMax: 5 * time.Minute, MaxEjectedPercent: 50,
	SlowStart: 20 * time.Second,
}

// adopted is a group with a member in each state: a is down, b is ejected, c
// starts, d is drained, e has another weight, f is in maintenance, g is up.
func adopted(t *testing.T) *health.Group {
	t.Helper()
	g := health.NewGroup(everything, members(7), start)
	checks(g, 0, "--", start)
	g.Fail(1, start)
	checks(g, 2, "--++", start)
	g.SetAdmin(3, health.Drain, start)
	g.SetWeight(4, 3, start)
	g.SetAdmin(5, health.Maintenance, start)
	g.Check(6, false, start) // one more and it is down
	return g
}

// reversed are members in another order, with a new one.
func reversed() []health.Member {
	all := append(members(7), health.Member{Name: "new", Weight: 1})
	for i, j := 0, len(all)-1; i < j; i, j = i+1, j-1 {
		all[i], all[j] = all[j], all[i]
	}
	return all
}

func TestAdoptKeeps(t *testing.T) {
	g := health.NewGroup(everything, reversed(), at(time.Second))
	want(t, "transitions", g.Adopt(adopted(t), true, at(time.Second)))
	states := map[string]health.State{
		"a": health.StateDown, "b": health.StateEjected, "c": health.StateStarting, "d": health.StateDrain,
		"e": health.StateUp, "f": health.StateMaintenance, "g": health.StateUp, "new": health.StateStarting,
	}
	for i := range g.Len() {
		if g.State(i) != states[g.Name(i)] {
			t.Errorf("%s is %v, want %v", g.Name(i), g.State(i), states[g.Name(i)])
		}
	}
	wantEffective(t, "weights", g,
		up(1),            // new
		up(20), down(20), // g, f
		up(60), up(0), // e, d
		up(1), down(20), down(20), // c, b, a
	)
	if got := g.Next(); !got.Equal(at(2 * time.Second)) {
		t.Errorf("next step at %v", got)
	}
	if got := g.EjectedUntil(6); !got.Equal(at(30 * time.Second)) {
		t.Errorf("b is ejected until %v", got)
	}
	if got := checks(g, 1, "-", at(time.Second)); len(got) != 1 {
		t.Errorf("the bad check of g before is forgotten: %v", got)
	}
	// The history of ejections: the second one is longer.
	g.Tick(at(30 * time.Second))
	g.Fail(6, at(30*time.Second))
	if got := g.EjectedUntil(6); !got.Equal(at(90 * time.Second)) {
		t.Errorf("b is ejected again until %v", got)
	}
}

func TestAdoptWithoutOverrides(t *testing.T) {
	g := health.NewGroup(everything, members(7), start)
	want(t, "transitions", g.Adopt(adopted(t), false, at(time.Second)),
		move(3, health.StateDrain, health.StateUp, health.ByConfig),
		move(5, health.StateMaintenance, health.StateStarting, health.ByConfig))
	if g.Weight(4) != 1 {
		t.Errorf("e has weight %d", g.Weight(4))
	}
}

func TestAdoptByAnotherPolicy(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(*health.Policy)
		want   []health.Transition
	}{
		"no checks": {
			func(p *health.Policy) { p.Checked = false },
			[]health.Transition{move(0, health.StateDown, health.StateStarting, health.ByConfig)},
		},
		"no ejection": {
			func(p *health.Policy) { p.Failures = 0 },
			[]health.Transition{move(1, health.StateEjected, health.StateStarting, health.ByConfig)},
		},
		"fewer ejected": {
			func(p *health.Policy) { p.MaxEjectedPercent = 0 },
			[]health.Transition{move(1, health.StateEjected, health.StateStarting, health.EjectionLimited)},
		},
		"no slow start": {
			func(p *health.Policy) { p.SlowStart = 0 },
			[]health.Transition{move(2, health.StateStarting, health.StateUp, health.ByConfig)},
		},
		"shorter slow start": {
			func(p *health.Policy) { p.SlowStart = time.Second },
			[]health.Transition{move(2, health.StateStarting, health.StateUp, health.SlowStartOver)},
		},
		"initially down": {func(p *health.Policy) { p.InitialUp = false }, nil},
	} {
		t.Run(name, func(t *testing.T) {
			p := everything
			tt.change(&p)
			g := health.NewGroup(p, members(7), start)
			want(t, "transitions", g.Adopt(adopted(t), true, at(time.Second)), tt.want...)
		})
	}
}

func TestAdoptShorterEjection(t *testing.T) {
	p := everything
	p.EjectBase, p.EjectMax = time.Second, 10*time.Second
	g := health.NewGroup(p, members(7), start)
	want(t, "transitions", g.Adopt(adopted(t), true, at(time.Second)))
	if got := g.EjectedUntil(1); !got.Equal(at(11 * time.Second)) {
		t.Errorf("ejected until %v", got)
	}
}

// TestAdoptUnchecked introduces checks that begin down: what served goes on.
func TestAdoptUnchecked(t *testing.T) {
	p := everything
	p.InitialUp = false
	g := health.NewGroup(p, members(3), start)
	want(t, "transitions", g.Adopt(health.NewGroup(health.Policy{}, members(2), start), true, start))
	wantEffective(t, "a new one waits for checks", g, up(1), up(1), down(1))
	want(t, "and starts slowly", checks(g, 2, "++", start), move(2, health.StateDown, health.StateStarting, health.ByChecks))
}
