package health

import "time"

// Adopt makes g, which is new and stands for the same pool by a new
// configuration, go on where old ended. Members of the same name keep their
// health, ejection, its history, and slow start, as far as the policy of g has
// these. With overrides they also keep what a person set by SetAdmin and
// SetWeight. Members that old did not have start slowly if they are up.
//
// A member that was not checked so far is healthy until checks say otherwise,
// whatever InitialUp is. The transitions are those between old and g, of members
// that both have. old is not to be used any more.
func (g *Group) Adopt(old *Group, overrides bool, now time.Time) []Transition {
	if old.now.After(now) {
		now = old.now
	}
	g.now = now
	byName := make(map[string]*member, len(old.members))
	for i := range old.members {
		byName[old.members[i].Name] = &old.members[i]
	}
	for i := range g.members {
		m := &g.members[i]
		if before, ok := byName[m.Name]; ok {
			g.inherit(m, before, overrides)
			continue
		}
		m.fresh = false
		if m.healthy && g.policy.SlowStart > 0 {
			m.started = now
		}
		m.state = g.stateOf(m)
	}
	var changes []Transition
	for i := range g.members {
		g.arm(&g.members[i])
		changes = g.report(changes, i, ByConfig)
	}
	// Only now is it known how many there are of each state.
	changes = g.relieve(changes)
	return append(changes, g.Tick(now)...)
}

// inherit makes m, which is new, what before was.
func (g *Group) inherit(m, before *member, overrides bool) {
	m.healthy = !g.policy.Checked || before.healthy
	m.streak, m.fresh = before.streak, before.fresh && !m.healthy
	if overrides {
		m.admin, m.weight = before.admin, before.weight
	}
	if g.policy.ejects() {
		m.ejections, m.until, m.conduct = before.ejections, before.until, before.conduct
		if longest := g.now.Add(g.policy.EjectMax); m.until.After(longest) {
			m.until = longest
		}
	}
	if g.policy.SlowStart > 0 {
		m.started = before.started
	}
	m.state = before.state
}
