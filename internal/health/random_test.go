package health_test

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/tproxyd/tproxyd/internal/balance"
	"github.com/tproxyd/tproxyd/internal/health"
)

// script plays bytes as events on a group and checks after each of them what
// has to hold.
type script struct {
	t       *testing.T
	data    []byte
	policy  health.Policy
	members []health.Member
	group   *health.Group
	now     time.Time

	states  []health.State // by the transitions
	results []string       // of checks, by member
	checks  int
	flips   int // by checks
	carried int // checks may have been in a row before, at most of that many members
}

// byte takes the next byte; behind the end they are 0.
func (s *script) byte() int {
	if len(s.data) == 0 {
		return 0
	}
	b := s.data[0]
	s.data = s.data[1:]
	return int(b)
}

func (s *script) newPolicy() health.Policy {
	b := s.byte()
	return health.Policy{
		Checked: b&1 > 0, InitialUp: b&2 > 0, PanicOpen: b&4 > 0, Failures: b >> 3 & 1,
		Rise: 1 + b>>4&3, Fall: 1 + b>>6,
		EjectBase: time.Duration(s.byte()) * time.Second, EjectMax: time.Minute,
		MaxEjectedPercent: s.byte() % 101,
		SlowStart:         time.Duration(s.byte()%64) * time.Second,
	}
}

func (s *script) newMembers() []health.Member {
	all := members(1 + s.byte()%8)
	for i := range all {
		b := s.byte()
		all[i].Weight, all[i].Backup = b>>1, b&1 > 0
		if b > 250 {
			all[i].Weight = balance.MaxWeight
		}
	}
	return all
}

func play(t *testing.T, data []byte) {
	s := &script{t: t, data: data, now: start}
	s.policy, s.members = s.newPolicy(), s.newMembers()
	s.group = health.NewGroup(s.policy, s.members, s.now)
	s.forget()
	s.hold()
	for len(s.data) > 0 && !t.Failed() {
		s.event()
		s.hold()
	}
	for range 2 { // what is ejected may start slowly then
		s.now = s.now.Add(time.Hour)
		s.take(s.group.Tick(s.now))
		s.hold()
	}
	for i := range s.members {
		if st := s.group.State(i); st == health.StateEjected || st == health.StateStarting {
			t.Errorf("member %d is %v for ever", i, st)
		}
	}
	if s.flips > s.carried+s.checks/min(s.policy.Rise, s.policy.Fall) {
		t.Errorf("%d changes by %d checks", s.flips, s.checks)
	}
}

// forget begins anew with what the group says now.
func (s *script) forget() {
	s.states = make([]health.State, len(s.members))
	s.results = make([]string, len(s.members))
	s.flips, s.checks = 0, 0
	for i := range s.members {
		s.states[i] = s.group.State(i)
	}
}

func (s *script) event() {
	s.now = s.now.Add(time.Duration(s.byte()) * 100 * time.Millisecond)
	b := s.byte()
	i := b >> 4 % len(s.members)
	switch b & 15 {
	case 0, 1, 2, 3:
		s.checks++
		s.results[i] += string("+-"[b&1])
		s.take(s.group.Check(i, b&1 == 0, s.now))
	case 4, 5, 6:
		s.take(s.group.Fail(i, s.now))
	case 7:
		s.take(s.group.Recover(i, s.now))
	case 8, 9, 10:
		s.take(s.group.SetAdmin(i, health.Admin(b&15-8), s.now))
	case 11:
		s.take(s.group.SetWeight(i, s.byte(), s.now))
	case 12:
		s.policy, s.members = s.newPolicy(), s.newMembers()
		g := health.NewGroup(s.policy, s.members, s.now)
		g.Adopt(s.group, b>>4&1 > 0, s.now)
		s.group, s.carried = g, len(s.members)
		s.forget()
	default:
		s.take(s.group.Tick(s.now))
	}
}

// take checks that transitions follow each other.
func (s *script) take(changes []health.Transition) {
	for _, c := range changes {
		if c.From != s.states[c.Member] || c.From == c.To || c.Name != s.members[c.Member].Name {
			s.t.Errorf("%+v, but it was %v", c, s.states[c.Member])
		}
		s.states[c.Member] = c.To
		if c.Cause == health.ByChecks {
			s.flips++
			s.inARow(c)
		}
	}
	for i, st := range s.states {
		if s.group.State(i) != st {
			s.t.Errorf("member %d is %v, by the transitions %v", i, s.group.State(i), st)
		}
	}
}

// inARow checks that enough results precede a change by checks.
func (s *script) inARow(c health.Transition) {
	result, n := byte('+'), s.policy.Rise
	if c.To == health.StateDown {
		result, n = '-', s.policy.Fall
	}
	// What was before Adopt is not in results, but counts.
	seen := s.results[c.Member]
	for k := len(seen) - 1; k >= 0 && k >= len(seen)-n; k-- {
		if seen[k] != result {
			s.t.Errorf("%+v after %q", c, seen)
		}
	}
}

// hold checks what is true of every group at any time.
func (s *script) hold() {
	used, ejected, starting, wanted, eligible := 0, 0, false, 0, 0
	effective := s.group.Effective()
	for i, e := range effective {
		st := s.group.State(i)
		available := s.group.Admin(i) == health.Ready && s.group.Weight(i) > 0
		if st.Serves() || st == health.StateEjected {
			used++
		}
		if st == health.StateEjected {
			ejected++
		}
		if available {
			wanted++
		}
		starting = starting || st == health.StateStarting
		if e.Weight < 0 || e.Weight > balance.MaxWeight {
			s.t.Errorf("weight %d", e.Weight)
		}
		if e.Up && e.Weight > 0 {
			eligible++
			if !available || !st.Serves() && !s.group.Panic() {
				s.t.Errorf("member %d, %v, may be chosen", i, st)
			}
		} else if st.Serves() {
			s.t.Errorf("member %d, %v, may not be chosen", i, st)
		}
	}
	allowed := used * s.policy.MaxEjectedPercent / 100
	if s.policy.MaxEjectedPercent > 0 && used > 1 {
		allowed = max(allowed, 1)
	}
	if ejected > allowed {
		s.t.Errorf("%d of %d are ejected by %d per cent", ejected, used, s.policy.MaxEjectedPercent)
	}
	if s.policy.PanicOpen && wanted > 0 && eligible == 0 {
		s.t.Error("nobody is left, although panic is open")
	}
	s.proportions(effective, starting)
	if next := s.group.Next(); !next.IsZero() && !next.After(s.now) || next.IsZero() && (ejected > 0 || starting) {
		s.t.Errorf("next is %v at %v", next, s.now)
	}
}

// proportions checks that weights compare to each other as they are to.
func (s *script) proportions(effective []balance.State, starting bool) {
	factor := 0
	for i, e := range effective {
		w := s.group.Weight(i)
		if w == 0 || e.Weight == 0 {
			continue
		}
		if s.group.State(i) == health.StateStarting {
			continue
		}
		if factor == 0 {
			factor = e.Weight / w
		}
		if e.Weight != w*factor || !starting && factor != 1 {
			s.t.Errorf("weights %v, factor %d", effective, factor)
		}
	}
}

func TestRandomEvents(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 3000 {
		data := make([]byte, 20+rng.IntN(400))
		for i := range data {
			data[i] = byte(rng.Uint32())
		}
		if play(t, data); t.Failed() {
			t.Fatalf("by %x", data)
		}
	}
}

func FuzzEvents(f *testing.F) {
	f.Add([]byte{0xff, 30, 50, 20, 3, 2, 2, 3, 0, 1, 0, 1, 0, 4, 200, 0x14, 255, 15})
	f.Add([]byte{0x0b, 1, 100, 1, 8, 2, 2, 2, 2, 2, 2, 2, 2, 0, 4, 0, 0x14, 0, 0x24, 0, 0x0c, 0xff, 30, 10, 20, 2})
	f.Fuzz(play)
}
