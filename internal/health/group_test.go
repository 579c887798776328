package health_test

import (
	"strings"
	"testing"
	"time"

	"github.com/tproxyd/tproxyd/internal/health"
)

func TestRiseAndFall(t *testing.T) {
	const u, d = health.StateUp, health.StateDown
	fell := move(0, u, d, health.ByChecks)
	rose := move(0, d, u, health.ByChecks)
	for name, tt := range map[string]struct {
		initialUp bool
		results   string
		changing  bool
		want      []health.Transition
	}{
		"none":                {true, "", false, nil},
		"good":                {true, "++++", false, nil},
		"two bad":             {true, "--", true, nil},
		"three bad":           {true, "---", false, []health.Transition{fell}},
		"three, not in a row": {true, "--+--", true, nil},
		"more are no news":    {true, "------", false, []health.Transition{fell}},
		"one good":            {true, "---+", true, []health.Transition{fell}},
		"two good":            {true, "---++", false, []health.Transition{fell, rose}},
		"good, not in a row":  {true, "---+-+-", false, []health.Transition{fell}},
		"begins down":         {false, "-", false, nil},
		"begins down, rises":  {false, "++", false, []health.Transition{rose}},
		"again":               {true, "---++---", false, []health.Transition{fell, rose, fell}},
	} {
		t.Run(name, func(t *testing.T) {
			p := checked
			p.InitialUp = tt.initialUp
			g := health.NewGroup(p, members(1), start)
			want(t, "transitions", checks(g, 0, tt.results, start), tt.want...)
			if g.Changing(0) != tt.changing {
				t.Errorf("changing is %v", g.Changing(0))
			}
		})
	}
}

// TestAlternatingChecks is a backend whose every other check fails.
func TestAlternatingChecks(t *testing.T) {
	for _, initialUp := range []bool{true, false} {
		p := checked
		p.Rise, p.Fall, p.InitialUp = 2, 2, initialUp
		g := health.NewGroup(p, members(1), start)
		want(t, "transitions", checks(g, 0, strings.Repeat("+-", 1000), start))
		if g.State(0).Serves() != initialUp {
			t.Errorf("initially up %v: %v in the end", initialUp, g.State(0))
		}
	}
}

func TestUnchecked(t *testing.T) {
	g := health.NewGroup(health.Policy{}, members(1), start)
	want(t, "transitions", checks(g, 0, "------", start))
	wantEffective(t, "in the end", g, up(1))
}

func TestAdmin(t *testing.T) {
	g := health.NewGroup(checked, members(2), start)
	want(t, "drain", g.SetAdmin(0, health.Drain, start), move(0, health.StateUp, health.StateDrain, health.ByAdmin))
	wantEffective(t, "drain", g, up(0), up(1))
	want(t, "drain again", g.SetAdmin(0, health.Drain, start))
	want(t, "down comes first", checks(g, 0, "---", start), move(0, health.StateDrain, health.StateDown, health.ByChecks))
	wantEffective(t, "drained and down", g, down(0), up(1))
	want(t, "maintenance", g.SetAdmin(0, health.Maintenance, start), move(0, health.StateDown, health.StateMaintenance, health.ByAdmin))
	want(t, "checks go on", checks(g, 0, "++", start))
	wantEffective(t, "maintenance", g, down(1), up(1))
	want(t, "ready", g.SetAdmin(0, health.Ready, start), move(0, health.StateMaintenance, health.StateUp, health.ByAdmin))
	wantEffective(t, "ready", g, up(1), up(1))
	if g.Admin(0) != health.Ready {
		t.Errorf("admin state is %v", g.Admin(0))
	}
}

func TestWeight(t *testing.T) {
	g := health.NewGroup(checked, []health.Member{{Name: "a", Weight: 10}, {Name: "b", Weight: 1000}}, start)
	wantEffective(t, "at first", g, up(10), up(256))
	want(t, "none", g.SetWeight(0, 0, start), move(0, health.StateUp, health.StateDrain, health.ByAdmin))
	wantEffective(t, "none", g, up(0), up(256))
	want(t, "some", g.SetWeight(0, 7, start), move(0, health.StateDrain, health.StateUp, health.ByAdmin))
	want(t, "other", g.SetWeight(0, -7, start), move(0, health.StateUp, health.StateDrain, health.ByAdmin))
	want(t, "configured", g.SetWeight(0, 10, start), move(0, health.StateDrain, health.StateUp, health.ByAdmin))
	if g.Weight(0) != 10 {
		t.Errorf("weight is %d", g.Weight(0))
	}
}

func TestPanic(t *testing.T) {
	p := ejecting
	p.Checked, p.Rise, p.Fall, p.InitialUp, p.MaxEjectedPercent = true, 1, 1, true, 100
	for _, open := range []bool{false, true} {
		p.PanicOpen = open
		all := members(5)
		all[4].Backup = true
		g := health.NewGroup(p, all, start)
		g.SetAdmin(0, health.Drain, start)
		g.SetAdmin(1, health.Maintenance, start)
		g.Check(2, false, start)
		g.Fail(3, start)
		if g.Panic() {
			t.Error("panic, although there is the backup")
		}
		wantEffective(t, "backup left", g, up(0), down(1), down(1), down(1), up(1))
		g.Check(4, false, start)
		if g.Panic() != open {
			t.Errorf("open %v: panic is %v", open, g.Panic())
		}
		none := down(1)
		none.Up = open
		wantEffective(t, "none left", g, up(0), down(1), none, none, none)
		g.Check(2, true, start)
		if g.Panic() {
			t.Error("panic, although one is back")
		}
		wantEffective(t, "one is back", g, up(0), down(1), up(1), down(1), down(1))
	}
	// Nothing can be opened where a person closed.
	g := health.NewGroup(p, members(1), start)
	g.SetAdmin(0, health.Drain, start)
	if g.Panic() {
		t.Error("panic by drain")
	}
}

func TestTimeGoesOn(t *testing.T) {
	g := health.NewGroup(ejecting, members(2), start)
	g.Fail(0, at(time.Hour))
	want(t, "earlier", g.Tick(start))
	g.Recover(1, start)
	if got := g.EjectedUntil(0); !got.Equal(at(time.Hour + 30*time.Second)) {
		t.Errorf("ejected until %v", got)
	}
}

func TestNames(t *testing.T) {
	seen := map[string]bool{}
	for s := range health.StateCount {
		if seen[s.String()] || s.String() == "" {
			t.Errorf("state %d is called %q", s, s)
		}
		seen[s.String()] = true
	}
	for in, want := range map[interface{ String() string }]string{
		health.StateCount:   "state 6",
		health.Admin(9):     "admin state 9",
		health.Maintenance:  "maintenance",
		health.StateEjected: "ejected",
	} {
		if in.String() != want {
			t.Errorf("%q, want %q", in, want)
		}
	}
}
