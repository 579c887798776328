package health

import (
	"time"

	"github.com/tproxyd/tproxyd/internal/balance"
)

// A slow start has slowSteps steps, of at least minStep: for each of them the
// pool computes its tables anew.
const (
	slowSteps = 20
	minStep   = 100 * time.Millisecond
)

// Effective is what the pool is to choose from, as of the time of the last
// call.
//
// A member that is down keeps its weight, one that is drained has 0. While
// a member starts slowly, the weights of all are multiplied by a common factor,
// so that there is room for its steps below a weight of 1; how they compare to
// each other stays the same.
func (g *Group) Effective() []balance.State {
	panicking := g.Panic()
	factor := g.factor()
	states := make([]balance.State, len(g.members))
	for i := range g.members {
		m := &g.members[i]
		s := balance.State{Weight: m.wanted() * factor, Up: m.state.Serves()}
		if m.admin == Drain {
			s.Weight = 0
		}
		switch {
		case m.admin == Maintenance:
		case s.Weight == 0:
			s.Up = m.healthy
		case m.state == StateStarting:
			s.Weight = g.starting(m, s.Weight)
		case panicking:
			s.Up = true
		}
		states[i] = s
	}
	return states
}

// Panic says whether all members are used that only checks or ejection
// exclude, because none is left.
func (g *Group) Panic() bool {
	if !g.policy.PanicOpen {
		return false
	}
	excluded := false
	for i := range g.members {
		m := &g.members[i]
		if m.state.Serves() {
			return false
		}
		excluded = excluded || m.admin == Ready && m.wanted() > 0
	}
	return excluded
}

// factor is what all weights are multiplied by.
func (g *Group) factor() int {
	largest, starting := 1, false
	for i := range g.members {
		m := &g.members[i]
		largest = max(largest, m.wanted())
		starting = starting || m.state == StateStarting
	}
	if !starting {
		return 1
	}
	return min(slowSteps, balance.MaxWeight/largest)
}

// starting is the weight of m on its way to full. It is never 0: somebody has
// to try it.
func (g *Group) starting(m *member, full int) int {
	done := g.now.Sub(m.started).Truncate(g.step())
	return max(1, int(int64(full)*int64(done)/int64(g.policy.SlowStart)))
}

// step is the time of one step of a slow start.
func (g *Group) step() time.Duration { return max(g.policy.SlowStart/slowSteps, minStep) }

// Next is when to call Tick and to look at Effective again, if nothing happens
// before: an ejection ends, or a slow start takes a step. Zero is never.
func (g *Group) Next() time.Time {
	var next time.Time
	for i := range g.members {
		m := &g.members[i]
		if !m.until.IsZero() {
			next = earlier(next, m.until)
		}
		if !m.started.IsZero() {
			steps := g.now.Sub(m.started)/g.step() + 1
			next = earlier(next, m.started.Add(min(steps*g.step(), g.policy.SlowStart)))
		}
	}
	return next
}
