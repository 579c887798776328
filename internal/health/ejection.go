package health

import "time"

// maxDoublings keeps the time of an ejection from overflowing.
const maxDoublings = 16

// Fail says that as many flows in a row failed with member i as the policy
// allows. It is ejected, unless it is not in use anyhow or too many are ejected.
func (g *Group) Fail(i int, now time.Time) []Transition {
	changes := g.Tick(now)
	m := &g.members[i]
	if !g.policy.ejects() || !m.state.Serves() {
		return changes
	}
	if used, ejected := g.inUse(); ejected+1 > g.limit(used) {
		return changes
	}
	m.ejections = min(max(m.ejections-g.forgiven(m), 0)+1, maxDoublings)
	m.conduct = time.Time{}
	m.until = g.now.Add(g.ejection(m))
	g.arm(m)
	return append(changes, g.settle(i, ByFailures)...)
}

// Recover says that a flow to member i succeeded. It is enough to call it for
// the first one after an ejection.
func (g *Group) Recover(i int, now time.Time) []Transition {
	changes := g.Tick(now)
	m := &g.members[i]
	if m.ejections > 0 && m.until.IsZero() && m.conduct.IsZero() {
		m.conduct = g.now
	}
	return changes
}

// ejection is how long m, which has just been ejected, stays so.
func (g *Group) ejection(m *member) time.Duration {
	d := g.policy.EjectBase
	for range m.ejections - 1 {
		if d >= g.policy.EjectMax/2 {
			return g.policy.EjectMax
		}
		d *= 2
	}
	return d
}

// forgiven is how many ejections of m are forgiven by now.
func (g *Group) forgiven(m *member) int {
	if m.conduct.IsZero() {
		return 0
	}
	return int(min(g.now.Sub(m.conduct)/g.policy.EjectBase, maxDoublings))
}

// limit is how many may be ejected of those that would be in use.
func (g *Group) limit(used int) int {
	n := used * g.policy.MaxEjectedPercent / 100
	if n == 0 && g.policy.MaxEjectedPercent > 0 && used > 1 {
		return 1
	}
	return n
}

// inUse counts the members that would be in use but for ejection, and those
// of them that are ejected.
func (g *Group) inUse() (used, ejected int) {
	for i := range g.members {
		switch s := g.members[i].state; {
		case s.Serves():
			used++
		case s == StateEjected:
			used++
			ejected++
		}
	}
	return used, ejected
}

// relieve ends the ejections that are too many, the nearest its end first.
func (g *Group) relieve(changes []Transition) []Transition {
	for {
		used, ejected := g.inUse()
		if ejected <= g.limit(used) {
			return changes
		}
		next := -1
		for i := range g.members {
			m := &g.members[i]
			if m.state == StateEjected && (next < 0 || m.until.Before(g.members[next].until)) {
				next = i
			}
		}
		g.members[next].until = time.Time{}
		changes = g.report(changes, next, EjectionLimited)
	}
}
