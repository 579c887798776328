package health_test

import (
	"testing"
	"time"

	"github.com/tproxyd/tproxyd/internal/health"
)

func slow(d time.Duration) health.Policy {
	p := checked
	p.Rise, p.Fall, p.SlowStart = 1, 1, d
	return p
}

func TestSlowStart(t *testing.T) {
	g := health.NewGroup(slow(20*time.Second), members(2), start)
	wantEffective(t, "at the start of the process", g, up(1), up(1))
	g.Check(0, false, start)
	wantEffective(t, "down", g, down(1), up(1))
	want(t, "comes up", g.Check(0, true, start), move(0, health.StateDown, health.StateStarting, health.ByChecks))
	wantEffective(t, "step 0", g, up(1), up(20))
	for step := 1; step < 20; step++ {
		now := g.Next()
		if wanted := at(time.Duration(step) * time.Second); !now.Equal(wanted) {
			t.Fatalf("step %d is at %v, want %v", step, now, wanted)
		}
		want(t, "a step", g.Tick(now))
		wantEffective(t, "a step", g, up(step), up(20))
		g.Tick(now.Add(time.Second - 1))
		wantEffective(t, "before the next", g, up(step), up(20))
	}
	want(t, "the last", g.Tick(g.Next()), move(0, health.StateStarting, health.StateUp, health.SlowStartOver))
	wantEffective(t, "in the end", g, up(1), up(1))
	if !g.Next().IsZero() {
		t.Errorf("next is %v", g.Next())
	}
}

func TestSlowStartScale(t *testing.T) {
	for name, tt := range map[string]struct {
		weights []int // of which the first starts
		half    []int // what they are at half of the time
	}{
		"ones":           {[]int{1, 1}, []int{10, 20}},
		"small":          {[]int{2, 3}, []int{20, 60}},
		"10":             {[]int{10, 12}, []int{100, 240}},
		"100":            {[]int{100, 100}, []int{100, 200}},
		"largest":        {[]int{256, 256}, []int{128, 256}},
		"small to large": {[]int{1, 256}, []int{1, 256}},
		"drained":        {[]int{2, 0, 1}, []int{20, 0, 20}},
	} {
		t.Run(name, func(t *testing.T) {
			all := members(len(tt.weights))
			for i := range all {
				all[i].Weight = tt.weights[i]
			}
			g := health.NewGroup(slow(10*time.Second), all, start)
			checks(g, 0, "-+", start)
			g.Tick(at(5 * time.Second))
			for i, s := range g.Effective() {
				if s.Weight != tt.half[i] || !s.Up {
					t.Errorf("member %d: %+v, want weight %d", i, s, tt.half[i])
				}
			}
			g.Tick(at(10 * time.Second))
			for i, s := range g.Effective() {
				if s.Weight != tt.weights[i] {
					t.Errorf("member %d in the end: %+v", i, s)
				}
			}
		})
	}
}

// TestWhoStartsSlowly goes through the ways to come up.
func TestWhoStartsSlowly(t *testing.T) {
	p := slow(time.Minute)
	p.InitialUp, p.Fall, p.Rise = false, 1, 2
	p.Failures, p.EjectBase, p.MaxEjectedPercent = 1, time.Minute, 50
	g := health.NewGroup(p, members(2), start)
	want(t, "first checks are good", checks(g, 0, "++", start), move(0, health.StateDown, health.StateUp, health.ByChecks))
	want(t, "or one was not", checks(g, 1, "+-++", start), move(1, health.StateDown, health.StateStarting, health.ByChecks))
	g.Tick(at(time.Minute))

	g.SetAdmin(0, health.Drain, at(time.Minute))
	want(t, "after a drain", g.SetAdmin(0, health.Ready, at(time.Minute)), move(0, health.StateDrain, health.StateUp, health.ByAdmin))
	g.SetAdmin(0, health.Maintenance, at(time.Minute))
	want(t, "after maintenance", g.SetAdmin(0, health.Ready, at(time.Minute)), move(0, health.StateMaintenance, health.StateStarting, health.ByAdmin))

	g.Fail(1, at(time.Hour))
	want(t, "after ejection", g.Tick(at(2*time.Hour)), move(1, health.StateEjected, health.StateStarting, health.EjectionOver))
	want(t, "and fails again", g.Fail(1, at(2*time.Hour)), move(1, health.StateStarting, health.StateEjected, health.ByFailures))
	wantEffective(t, "nobody starts", g, up(1), down(1))
}

// TestDrainedStarts has a drained member come up: its time runs meanwhile.
func TestDrainedStarts(t *testing.T) {
	g := health.NewGroup(slow(20*time.Second), members(2), start)
	g.SetAdmin(0, health.Drain, start)
	checks(g, 0, "-+", start)
	wantEffective(t, "drained", g, up(0), up(1))
	g.SetAdmin(0, health.Ready, at(10*time.Second))
	wantEffective(t, "ready", g, up(10), up(20))
	g.SetAdmin(0, health.Drain, at(11*time.Second))
	want(t, "full while drained", g.Tick(at(time.Hour)))
}

func TestShortSlowStart(t *testing.T) {
	g := health.NewGroup(slow(150*time.Millisecond), members(2), start)
	checks(g, 0, "-+", start)
	for _, wanted := range []time.Duration{100 * time.Millisecond, 150 * time.Millisecond} {
		if got := g.Next(); !got.Equal(at(wanted)) {
			t.Errorf("next step %v, want %v", got, at(wanted))
		}
		g.Tick(at(wanted))
	}
	wantEffective(t, "in the end", g, up(1), up(1))
}
