package health_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/tproxyd/tproxyd/internal/health"
)

// TestEjectionTimes has a member fail as soon as it is back.
func TestEjectionTimes(t *testing.T) {
	g := health.NewGroup(ejecting, members(2), start)
	now := start
	for _, seconds := range []int{30, 60, 120, 240, 300, 300, 300} {
		want(t, "fail", g.Fail(0, now), move(0, health.StateUp, health.StateEjected, health.ByFailures))
		wantEffective(t, "ejected", g, down(1), up(1))
		want(t, "fail while ejected", g.Fail(0, now))
		want(t, "success while ejected", g.Recover(0, now))
		end := now.Add(time.Duration(seconds) * time.Second)
		if got := g.Next(); !got.Equal(end) {
			t.Fatalf("ejected for %v, want %d s", got.Sub(now), seconds)
		}
		want(t, "too early", g.Tick(end.Add(-1)))
		now = end
		want(t, "in time", g.Tick(now), move(0, health.StateEjected, health.StateUp, health.EjectionOver))
		if !g.Next().IsZero() {
			t.Errorf("next is %v", g.Next())
		}
	}
}

func TestForgiveness(t *testing.T) {
	const base = 30 * time.Second
	for name, tt := range map[string]struct {
		success bool
		good    time.Duration // between the return of the third ejection and the fourth
		want    time.Duration
	}{
		"none":        {true, base - 1, 8 * base},
		"one":         {true, base, 4 * base},
		"two":         {true, 2 * base, 2 * base},
		"all":         {true, 3 * base, base},
		"no more":     {true, 100 * base, base},
		"no evidence": {false, 100 * base, 8 * base},
	} {
		t.Run(name, func(t *testing.T) {
			g := health.NewGroup(ejecting, members(2), start)
			now := start
			for range 3 {
				g.Fail(0, now)
				now = g.Next()
				g.Tick(now)
			}
			if tt.success {
				g.Recover(0, now)
				g.Recover(0, now.Add(tt.good)) // a later one changes nothing
			}
			now = now.Add(tt.good)
			g.Fail(0, now)
			if got := g.Next().Sub(now); got != tt.want {
				t.Errorf("the fourth lasts %v, want %v", got, tt.want)
			}
		})
	}
}

func TestEjectionLimit(t *testing.T) {
	for _, tt := range []struct{ members, percent, want int }{
		{1, 50, 0},
		{1, 100, 1},
		{2, 0, 0},
		{2, 1, 1},
		{2, 50, 1},
		{2, 99, 1},
		{2, 100, 2},
		{3, 50, 1},
		{3, 67, 2},
		{5, 19, 1},
		{5, 20, 1},
		{5, 40, 2},
		{5, 59, 2},
	} {
		t.Run(fmt.Sprint(tt.members, tt.percent), func(t *testing.T) {
			p := ejecting
			p.MaxEjectedPercent = tt.percent
			all := members(tt.members)
			all[0].Backup = true // backups count like the others
			g := health.NewGroup(p, all, start)
			n := 0
			for i := range all {
				n += len(g.Fail(i, start))
			}
			if n != tt.want {
				t.Errorf("%d ejected, want %d", n, tt.want)
			}
		})
	}
}

// TestLimitFollows has members leave while as many are ejected as may be.
func TestLimitFollows(t *testing.T) {
	p := ejecting
	p.Checked, p.Fall, p.InitialUp = true, 1, true
	for name, leave := range map[string]func(*health.Group, int) []health.Transition{
		"drain":  func(g *health.Group, i int) []health.Transition { return g.SetAdmin(i, health.Drain, at(2)) },
		"weight": func(g *health.Group, i int) []health.Transition { return g.SetWeight(i, 0, at(2)) },
		"checks": func(g *health.Group, i int) []health.Transition { return g.Check(i, false, at(2)) },
	} {
		t.Run(name, func(t *testing.T) {
			g := health.NewGroup(p, members(4), start)
			g.Fail(1, at(0))
			g.Fail(0, at(1))
			got := leave(g, 3)
			if len(got) != 2 || got[0].Member != 3 {
				t.Fatalf("got %v", got)
			}
			want(t, "the older ejection", got[1:], move(1, health.StateEjected, health.StateUp, health.EjectionLimited))
			if got := leave(g, 1); len(got) != 1 {
				t.Fatalf("one of two may be ejected: %v", got)
			}
			want(t, "the last", leave(g, 2)[1:], move(0, health.StateEjected, health.StateUp, health.EjectionLimited))
		})
	}
}

func TestEjectedGoesDown(t *testing.T) {
	p := ejecting
	p.Checked, p.Rise, p.Fall, p.InitialUp = true, 1, 2, true
	g := health.NewGroup(p, members(2), start)
	g.Fail(0, start)
	want(t, "checks", checks(g, 0, "--", at(1)), move(0, health.StateEjected, health.StateDown, health.ByChecks))
	want(t, "failures of one that is down", g.Fail(0, at(1)))
	want(t, "end of the ejection", g.Tick(at(time.Hour)))
	want(t, "back", g.Check(0, true, at(time.Hour)), move(0, health.StateDown, health.StateUp, health.ByChecks))
}

func TestNoEjection(t *testing.T) {
	g := health.NewGroup(checked, members(2), start)
	want(t, "fail", g.Fail(0, start))
	g = health.NewGroup(ejecting, members(4), start)
	g.SetAdmin(0, health.Drain, start)
	g.SetAdmin(1, health.Maintenance, start)
	want(t, "fail of a drained one", g.Fail(0, start))
	want(t, "fail of one in maintenance", g.Fail(1, start))
}
