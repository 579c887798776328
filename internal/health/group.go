package health

import (
	"time"

	"github.com/tproxyd/tproxyd/internal/balance"
)

// Group is the members of one pool and their health. It is not safe for
// concurrent use. Calls that are given the time first do what is due by then, as
// [Group.Tick] does; a time before that of an earlier call counts as that one.
type Group struct {
	policy  Policy
	members []member
	now     time.Time
	due     time.Time // no ejection and no slow start ends sooner; zero: none ends
}

type member struct {
	Member
	admin  Admin
	weight int // that a person set; -1: the configured one

	healthy bool
	streak  int  // results in a row that say the opposite of healthy
	fresh   bool // not healthy since the start, but without a bad check: no slow start

	ejections int       // doublings and the first; forgiven by good conduct
	until     time.Time // end of the ejection; zero: not ejected
	conduct   time.Time // first success since the last ejection; zero: none yet

	started time.Time // slow start; zero: at full weight
	state   State     // as last reported
}

// NewGroup returns a Group as it is when the process starts.
func NewGroup(p Policy, members []Member, now time.Time) *Group {
	g := &Group{policy: p.withDefaults(), members: make([]member, len(members)), now: now}
	for i, c := range members {
		m := &g.members[i]
		*m = member{Member: c, weight: -1, healthy: !p.Checked || p.InitialUp}
		m.fresh = !m.healthy
		m.Weight = clampWeight(c.Weight)
		m.state = g.stateOf(m)
	}
	return g
}

func clampWeight(w int) int { return min(max(w, 0), balance.MaxWeight) }

// Len is the number of members.
func (g *Group) Len() int { return len(g.members) }

// Name is the name of member i.
func (g *Group) Name(i int) string { return g.members[i].Name }

// State is the state of member i.
func (g *Group) State(i int) State { return g.members[i].state }

// Admin is what a person wants of member i.
func (g *Group) Admin(i int) Admin { return g.members[i].admin }

// Weight is the weight of member i: the configured one, or one that a person
// set. [Group.Effective] has what comes of it.
func (g *Group) Weight(i int) int { return g.members[i].wanted() }

// EjectedUntil is when the ejection of member i ends; zero: it is not ejected.
func (g *Group) EjectedUntil(i int) time.Time { return g.members[i].until }

// Healthy says whether checks hold member i for well, whatever its state.
func (g *Group) Healthy(i int) bool { return g.members[i].healthy }

// Changing says whether active checks of member i disagree with its health, but
// are not enough in a row yet.
func (g *Group) Changing(i int) bool { return g.members[i].streak > 0 }

// Check takes the result of an active check of member i.
func (g *Group) Check(i int, ok bool, now time.Time) []Transition {
	changes := g.Tick(now)
	m := &g.members[i]
	if !g.policy.Checked {
		return changes
	}
	m.fresh = m.fresh && ok
	if ok == m.healthy {
		m.streak = 0
		return changes
	}
	m.streak++
	needed := g.policy.Fall
	if ok {
		needed = g.policy.Rise
	}
	if m.streak < needed {
		return changes
	}
	m.healthy, m.streak = ok, 0
	return append(changes, g.settle(i, ByChecks)...)
}

// SetAdmin sets what a person wants of member i.
func (g *Group) SetAdmin(i int, a Admin, now time.Time) []Transition {
	changes := g.Tick(now)
	g.members[i].admin = a
	return append(changes, g.settle(i, ByAdmin)...)
}

// SetWeight gives member i another weight than the configured one, or that one
// again. Outside of 0 to balance.MaxWeight the nearest of these is taken.
func (g *Group) SetWeight(i, weight int, now time.Time) []Transition {
	changes := g.Tick(now)
	m := &g.members[i]
	m.weight = clampWeight(weight)
	if m.weight == m.Weight {
		m.weight = -1
	}
	return append(changes, g.settle(i, ByAdmin)...)
}

// Tick does what is due by now: ejections that end, slow starts that are over.
func (g *Group) Tick(now time.Time) []Transition {
	if now.After(g.now) {
		g.now = now
	}
	if g.due.IsZero() || g.due.After(g.now) {
		return nil
	}
	g.due = time.Time{}
	var changes []Transition
	for i := range g.members {
		m := &g.members[i]
		if !m.until.IsZero() && !m.until.After(g.now) {
			m.until = time.Time{}
			changes = append(changes, g.settle(i, EjectionOver)...)
		}
		if !m.started.IsZero() && !g.fullAt(m).After(g.now) {
			m.started = time.Time{}
			changes = append(changes, g.settle(i, SlowStartOver)...)
		}
	}
	for i := range g.members {
		g.arm(&g.members[i])
	}
	return changes
}

// arm has Tick look at m in time.
func (g *Group) arm(m *member) {
	if !m.until.IsZero() {
		g.due = earlier(g.due, m.until)
	}
	if !m.started.IsZero() {
		g.due = earlier(g.due, g.fullAt(m))
	}
}

// earlier is the earlier of two times that are not zero.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || b.Before(a) {
		return b
	}
	return a
}

// fullAt is when m, which starts slowly, has its full weight.
func (g *Group) fullAt(m *member) time.Time { return m.started.Add(g.policy.SlowStart) }

// settle finds out what has become of member i, after something of it changed
// for the given cause, and what that means to the others.
func (g *Group) settle(i int, cause Cause) []Transition {
	changes := g.report(nil, i, cause)
	if len(changes) == 0 {
		return nil // it counts as it did
	}
	return g.relieve(changes)
}

// report appends the change of member i's state, if it changed, and starts or
// ends what goes with the states.
func (g *Group) report(to []Transition, i int, cause Cause) []Transition {
	m := &g.members[i]
	from, next := m.state, g.stateOf(m)
	away := from.Gone() || from == StateEjected
	switch {
	case next.Gone() || next == StateEjected:
		m.started = time.Time{}
	case away && !m.fresh && g.policy.SlowStart > 0:
		m.started = g.now
		g.arm(m)
		next = g.stateOf(m)
	}
	m.fresh = m.fresh && !m.healthy
	if next == from {
		return to
	}
	m.state = next
	return append(to, Transition{i, m.Name, from, next, cause})
}

// stateOf computes the state of m.
func (g *Group) stateOf(m *member) State {
	switch {
	case m.admin == Maintenance:
		return StateMaintenance
	case !m.healthy:
		return StateDown
	case m.admin == Drain || m.wanted() == 0:
		return StateDrain
	case !m.until.IsZero():
		return StateEjected
	case !m.started.IsZero():
		return StateStarting
	}
	return StateUp
}

// wanted is the weight that a person or the configuration wants.
func (m *member) wanted() int {
	if m.weight >= 0 {
		return m.weight
	}
	return m.Weight
}
