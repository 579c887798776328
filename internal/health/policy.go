package health

import (
	"fmt"
	"time"
)

// Policy is by what rules the members of a pool are in use.
type Policy struct {
	Checked    bool // there are active checks; without them every member is healthy
	Rise, Fall int  // good checks in a row to come up, bad ones to go down; below 1 is 1
	InitialUp  bool // before the first results

	Failures          int           // of flows in a row, which the data plane counts; 0: no ejection
	EjectBase         time.Duration // the first ejection; 0: no ejection
	EjectMax          time.Duration // the longest; below EjectBase is EjectBase
	MaxEjectedPercent int           // of the members in use
	SlowStart         time.Duration // until a member that came up has its full weight; 0: at once
	PanicOpen         bool          // when no member is left: use them all, instead of none
}

func (p Policy) withDefaults() Policy {
	p.Rise, p.Fall = max(p.Rise, 1), max(p.Fall, 1)
	p.EjectMax = max(p.EjectMax, p.EjectBase)
	return p
}

// ejects says whether members are ejected at all.
func (p *Policy) ejects() bool { return p.Failures > 0 && p.EjectBase > 0 }

// Member is a backend as it is configured.
type Member struct {
	Name   string // unique in the Group
	Weight int    // 0 to balance.MaxWeight; 0: no new flows
	Backup bool
}

// Admin is what a person wants of a member.
type Admin uint8

// The wishes.
const (
	Ready       Admin = iota // it may be used
	Drain                    // no new flows
	Maintenance              // out of use, as if it were down
)

var adminNames = [...]string{Ready: "ready", Drain: "drain", Maintenance: "maintenance"}

func (a Admin) String() string {
	if int(a) < len(adminNames) {
		return adminNames[a]
	}
	return fmt.Sprintf("admin state %d", uint8(a))
}

// State is the sum of all that is known of a member.
type State uint8

// The states.
const (
	StateUp          State = iota
	StateStarting          // up, and not at its full weight yet
	StateDown              // by active checks
	StateEjected           // for a time, as flows to it failed
	StateDrain             // no new flows
	StateMaintenance       // taken out by a person
	StateCount
)

var stateNames = [StateCount]string{"up", "starting", "down", "ejected", "drain", "maintenance"}

// String is the name for people and metrics.
func (s State) String() string {
	if s < StateCount {
		return stateNames[s]
	}
	return fmt.Sprintf("state %d", uint8(s))
}

// Serves says whether members in this state get new flows.
func (s State) Serves() bool { return s == StateUp || s == StateStarting }

// Gone says whether a member in this state is of no use to the flows that it
// has either.
func (s State) Gone() bool { return s == StateDown || s == StateMaintenance }

// Cause is why a member changed its state. There are few, so it can be a label.
type Cause string

// The causes.
const (
	ByChecks        Cause = "checks"           // enough of them in a row
	ByFailures      Cause = "failures"         // of flows
	EjectionOver    Cause = "ejection_over"    // its time has passed
	EjectionLimited Cause = "ejection_limited" // ended early, as members in use have become fewer
	SlowStartOver   Cause = "slow_start_over"  // it has its full weight
	ByAdmin         Cause = "admin"            // a person
	ByConfig        Cause = "config"           // a changed configuration, in Adopt
)

// Transition is a change of a member's state.
type Transition struct {
	Member   int
	Name     string
	From, To State
	Cause    Cause
}
