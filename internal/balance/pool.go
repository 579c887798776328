package balance

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
)

// Bounds of a Config.
const (
	MaxMembers = 1<<16 - 1
	MaxWeight  = 256
)

// Config describes a Pool.
type Config struct {
	Algorithm Algorithm
	Members   []Member

	Seed      uint64 // of hashes and of chance; the same on nodes that are to choose alike
	Hash      Hash   // of Maglev
	TableSize int    // of Maglev, a prime number; 0: DefaultTableSize
}

// Member is a backend as a Pool begins with it.
type Member struct {
	Name   string // unique in the Pool; what hashes go by
	Weight int    // 0 to MaxWeight; 0: no new flows
	Backup bool   // chosen only when no other member is left
	Down   bool   // it begins so
	Limit  int    // of active flows; 0: none
	Load   *Load  // nil: one of its own
}

// State is what of a member changes at run time.
type State struct {
	Weight int  // 0 to MaxWeight; 0: no new flows
	Up     bool // whether it may be chosen
}

// Pool is the members of a service. All methods may be called by any goroutine,
// but those that change a State compute tables, which takes milliseconds: they
// are not for the data path.
type Pool struct {
	algorithm Algorithm
	hash      Hash
	seed      uint64
	tableSize int
	members   []member
	targets   []target // what workers need of members

	mu     sync.Mutex // held to change what follows
	views  []*View
	states atomic.Pointer[[]State] // never changed, only replaced
}

// member is the part of a member that does not change and that workers do not
// need.
type member struct {
	name         string
	backup       bool
	offset, skip uint64 // of Maglev
	bid          uint64 // of SourceHash
}

// NewPool returns a Pool. All its members may be chosen but those that begin
// down.
func NewPool(c Config) (*Pool, error) {
	if c.TableSize == 0 {
		c.TableSize = DefaultTableSize
	}
	if err := c.check(); err != nil {
		return nil, err
	}
	p := &Pool{algorithm: c.Algorithm, hash: c.Hash, seed: c.Seed, tableSize: c.TableSize}
	loads := make([]Load, len(c.Members)) // side by side, for LeastConn looks at all
	states := make([]State, len(c.Members))
	for i, m := range c.Members {
		if m.Load == nil {
			m.Load = &loads[i]
		}
		p.targets = append(p.targets, target{load: m.Load, limit: int64(m.Limit), index: i})
		p.members = append(p.members, member{
			name:   m.Name,
			backup: m.Backup,
			offset: hashName(c.Seed, useOffset, m.Name),
			skip:   hashName(c.Seed, useSkip, m.Name),
			bid:    hashName(c.Seed, useRendezvous, m.Name),
		})
		states[i] = State{Weight: m.Weight, Up: !m.Down}
	}
	p.states.Store(&states)
	return p, nil
}

func (c *Config) check() error {
	if int(c.Algorithm) >= len(algorithmNames) {
		return fmt.Errorf("unknown %v", c.Algorithm)
	}
	if int(c.Hash) >= len(hashNames) {
		return fmt.Errorf("unknown %v", c.Hash)
	}
	if len(c.Members) > MaxMembers {
		return fmt.Errorf("%d members are over %d", len(c.Members), MaxMembers)
	}
	if c.Algorithm == Maglev {
		if !prime(c.TableSize) || c.TableSize < 3 || c.TableSize > MaxTableSize {
			return fmt.Errorf("table size %d is not a prime number from 3 to %d", c.TableSize, MaxTableSize)
		}
		if c.TableSize < len(c.Members) {
			return fmt.Errorf("table size %d is below the number of members, %d", c.TableSize, len(c.Members))
		}
	}
	names := make(map[string]bool, len(c.Members))
	for _, m := range c.Members {
		if m.Name == "" {
			return errors.New("a member has no name")
		}
		if names[m.Name] {
			return fmt.Errorf("member %q is there twice", m.Name)
		}
		names[m.Name] = true
		if m.Limit < 0 {
			return fmt.Errorf("member %q: limit %d is negative", m.Name, m.Limit)
		}
		if err := checkWeight(m.Weight); err != nil {
			return fmt.Errorf("member %q: %w", m.Name, err)
		}
	}
	return nil
}

func checkWeight(w int) error {
	if w < 0 || w > MaxWeight {
		return fmt.Errorf("weight %d is not from 0 to %d", w, MaxWeight)
	}
	return nil
}

// Len is the number of members.
func (p *Pool) Len() int { return len(p.members) }

// Name is the name of member i.
func (p *Pool) Name(i int) string { return p.members[i].name }

// State is the state of member i.
func (p *Pool) State(i int) State { return (*p.states.Load())[i] }

// SetWeight changes the weight of member i.
func (p *Pool) SetWeight(i, weight int) error {
	return p.Update(func(s []State) { s[i].Weight = weight })
}

// SetUp says whether member i may be chosen.
func (p *Pool) SetUp(i int, up bool) {
	// Only a weight can be wrong, and none is changed.
	_ = p.Update(func(s []State) { s[i].Up = up })
}

// Update lets change edit the states of all members, and publishes what comes
// out at once: many changes cost no more than one. Nobody else changes states
// meanwhile. If a weight is out of bounds nothing is changed.
func (p *Pool) Update(change func(s []State)) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	states := slices.Clone(*p.states.Load())
	change(states)
	for i, s := range states {
		if err := checkWeight(s.Weight); err != nil {
			return fmt.Errorf("member %q: %w", p.members[i].name, err)
		}
	}
	p.states.Store(&states)
	for _, v := range p.views {
		v.publish(states)
	}
	return nil
}

// Active is the number of active flows of member i.
func (p *Pool) Active(i int) int { return p.targets[i].load.Active() }

// Acquire counts a flow of member i. It is false if i is full, which it can be
// although it was just picked: other workers pick as well. Then i counts as
// tried, or the choice is made again.
func (p *Pool) Acquire(i int) bool {
	t := &p.targets[i]
	if t.limit == 0 {
		t.load.active.Add(1)
		return true
	}
	for {
		switch n := t.load.active.Load(); {
		case n >= t.limit:
			return false
		case t.load.active.CompareAndSwap(n, n+1):
			return true
		}
	}
}

// Release ends what a successful Acquire began.
func (p *Pool) Release(i int) { p.targets[i].load.active.Add(-1) }
