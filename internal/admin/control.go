package admin

import "errors"

// Control is what the API lists and changes of the running data plane. Its
// methods are called by several goroutines at once.
type Control interface {
	// Flows returns the flows that q asks for; a [Collector] per worker, merged,
	// does it without building more than q.Limit of them.
	Flows(q FlowQuery) FlowList
	// CutFlow resets both sides of a flow, or tells that there is none of that id.
	CutFlow(id uint64) bool
	// SetBackend changes one backend and returns what it has become. It returns
	// ErrNoService, ErrNoBackend, ErrDraining or an error that wraps ErrRefused;
	// anything else counts as a fault of the daemon.
	SetBackend(service, backend string, c BackendChange) (Backend, error)
}

// What a Control answers to a change that it does not make.
var (
	ErrNoService = errors.New("no such service")
	ErrNoBackend = errors.New("no such backend")
	ErrDraining  = errors.New("the daemon is draining: nothing can be changed any more")
	// ErrRefused is wrapped by errors that say what about a change cannot be.
	ErrRefused = errors.New("change refused")
)

// MaxWeight is the largest weight of a backend, as in the configuration.
const MaxWeight = 256

// DefaultWeight in a [BackendChange] takes back an earlier change: the weight is
// the configured one again.
const DefaultWeight = -1

// BackendChange is what is to change about a backend at run time.
type BackendChange struct {
	Weight *int       // 0 to MaxWeight, or DefaultWeight; nil: as it is
	State  AdminState // "": as it is
}

// AdminState is what the operator wants of a backend.
type AdminState string

// The administrative states.
const (
	AdminReady       AdminState = "ready"
	AdminDrain       AdminState = "drain"       // no new flows, the others go on
	AdminMaintenance AdminState = "maintenance" // no new flows and no checks
)

// BackendState is what a backend is in, all in all.
type BackendState string

// The states of a backend. New flows go to those that are up or starting.
const (
	BackendUp          BackendState = "up"
	BackendDown        BackendState = "down"    // by active checks
	BackendEjected     BackendState = "ejected" // by what its flows met
	BackendDrain       BackendState = "drain"
	BackendMaintenance BackendState = "maintenance"
	BackendStarting    BackendState = "starting" // up since a moment ago: not its full weight yet
)

func backendStates() []BackendState {
	return []BackendState{BackendUp, BackendDown, BackendEjected, BackendDrain, BackendMaintenance, BackendStarting}
}

// TakesFlows tells whether new flows may go to b.
func (b Backend) TakesFlows() bool {
	return (b.State == BackendUp || b.State == BackendStarting) && b.Weight > 0
}
