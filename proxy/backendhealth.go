package proxy

import "github.com/tproxyd/tproxyd/internal/health"

// health is the state of the backends of a service now.
func (g *governor) health(service string) []BackendHealth {
	g.mu.Lock()
	defer g.mu.Unlock()
	n := g.governed[service]
	if n == nil {
		return nil
	}
	all := make([]BackendHealth, len(n.places))
	for i, p := range n.places {
		group := n.groups[p.route]
		all[i] = BackendHealth{
			State: group.State(p.member), Admin: group.Admin(p.member), Weight: group.Weight(p.member),
			Why: n.why(i), Changed: n.kept[i],
		}
	}
	return all
}

// BackendHealth is what becomes of a backend by checks, flows and people.
type BackendHealth struct {
	State   health.State
	Admin   health.Admin
	Weight  int    // configured, or set at run time
	Why     string // what State comes from, for people; may be empty
	Changed bool   // Admin or Weight was set at run time
}

// why is what the state of backend i comes from, for people. One that is up has
// a reason only while its checks fail.
func (n *governed) why(i int) string {
	group, member := n.group(i), n.places[i].member
	switch group.State(member) {
	case health.StateEjected:
		return n.causes[i].flows
	case health.StateMaintenance:
		return "set by the API"
	case health.StateDrain:
		if group.Admin(member) == health.Ready {
			return "its weight is 0"
		}
		return "set by the API"
	case health.StateDown:
		if n.causes[i].check == "" {
			return "no check of it was good yet"
		}
		return n.causes[i].check
	default:
		return n.causes[i].check
	}
}
