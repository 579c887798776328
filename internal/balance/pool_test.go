package balance_test

import (
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tproxyd/tproxyd/internal/balance"
)

func TestNewPoolRefuses(t *testing.T) {
	for want, c := range map[string]balance.Config{
		"unknown algorithm 6":                    {Algorithm: 6},
		"unknown hash 2":                         {Hash: 2},
		"65536 members are over 65535":           {Members: members(1 << 16)},
		"table size 65536 is not a prime number": {Algorithm: balance.Maglev, TableSize: 65536},
		"table size 2 is not a prime":            {Algorithm: balance.Maglev, TableSize: 2},
		"table size -7 is not a prime":           {Algorithm: balance.Maglev, TableSize: -7},
		"table size 5000077 is not":              {Algorithm: balance.Maglev, TableSize: 5000077},
		"table size 3 is below the number of members, 4": {
			Algorithm: balance.Maglev, TableSize: 3, Members: members(4),
		},
		"a member has no name":                    {Members: []balance.Member{{}}},
		`member "a" is there twice`:               {Members: []balance.Member{{Name: "a"}, {Name: "a"}}},
		`member "a": limit -1 is negative`:        {Members: []balance.Member{{Name: "a", Limit: -1}}},
		`member "a": weight 257 is not from 0 to`: {Members: []balance.Member{{Name: "a", Weight: 257}}},
		`member "a": weight -1 is not from 0 to`:  {Members: []balance.Member{{Name: "a", Weight: -1}}},
	} {
		if _, err := balance.NewPool(c); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got error %v, want %q", err, want)
		}
	}
}

func TestNames(t *testing.T) {
	var got []string
	for _, a := range append(algorithms, 6) {
		got = append(got, a.String())
	}
	for _, h := range []balance.Hash{balance.FiveTuple, balance.ClientIP, 2} {
		got = append(got, h.String())
	}
	want := []string{
		"round-robin", "least-conn", "random-two", "source-hash", "maglev", "first", "algorithm 6",
		"5-tuple", "client-ip", "hash 2",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestUpdate(t *testing.T) {
	c := balance.Config{Members: weighted(1, 2, 3)}
	c.Members[1].Down = true
	p := newPool(t, c)
	want := []balance.State{{Weight: 1, Up: true}, {Weight: 2}, {Weight: 3, Up: true}}
	check := func() {
		t.Helper()
		var got []balance.State
		for i := range p.Len() {
			got = append(got, p.State(i))
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("states (-want +got):\n%s", diff)
		}
	}
	check()

	if err := p.SetWeight(0, 256); err != nil {
		t.Error(err)
	}
	p.SetUp(1, true)
	p.SetUp(2, false)
	want = []balance.State{{Weight: 256, Up: true}, {Weight: 2, Up: true}, {Weight: 3}}
	check()

	err := p.Update(func(s []balance.State) {
		s[0].Up = false
		s[2].Weight = 257
	})
	if err == nil || !strings.Contains(err.Error(), p.Name(2)) {
		t.Errorf("error %v, want one that names %s", err, p.Name(2))
	}
	check() // nothing has changed
}

func TestViews(t *testing.T) {
	p := newPool(t, balance.Config{Members: members(5)})
	v := p.View([]int{3, 1, 3})
	if v != p.View([]int{1, 3}) || v == p.All() || p.All() != p.View([]int{0, 1, 2, 3, 4}) {
		t.Error("views of the same members are not the same, or others are")
	}
	for _, a := range algorithms {
		p := newPool(t, balance.Config{Algorithm: a, Members: members(5)})
		s, none := p.View([]int{3, 1}).Selector(0), p.View(nil).Selector(0)
		for n := range 50 {
			k := key(n)
			if i, ok := s.Pick(&k, &balance.Set{}); !ok || i != 1 && i != 3 {
				t.Errorf("%v: picked %d, %t", a, i, ok)
			}
			if i, ok := none.Pick(&k, &balance.Set{}); ok {
				t.Errorf("%v: picked %d of none", a, i)
			}
		}
	}
}

// The load of a backend is that of all pools it is in.
func TestLoadOutlivesPool(t *testing.T) {
	var load balance.Load
	c := balance.Config{Algorithm: balance.First, Members: []balance.Member{
		{Name: "a", Weight: 1, Limit: 2, Load: &load}, {Name: "b", Weight: 1},
	}}
	before, after := newPool(t, c), newPool(t, c)
	for i, p := range []*balance.Pool{before, after, before, after} {
		if p.Acquire(0) != (i < 2) {
			t.Fatalf("with the limit of 2, flow %d is let in: %t", i, i >= 2)
		}
	}
	s := after.All().Selector(0)
	if i, ok := s.Pick(nil, &balance.Set{}); !ok || i != 1 {
		t.Errorf("picked %d, %t; 0 is full", i, ok)
	}
	before.Release(0)
	if i, ok := s.Pick(nil, &balance.Set{}); !ok || i != 0 || after.Active(0) != 1 || load.Active() != 1 {
		t.Errorf("picked %d, %t with %d flows; 0 has room again", i, ok, load.Active())
	}
}

// However many acquire at once, a limit holds.
func TestLimitHolds(t *testing.T) {
	const limit, goroutines = 5, 4
	p := newPool(t, balance.Config{Members: []balance.Member{{Name: "a", Weight: 1, Limit: limit}}})
	var held atomic.Int32
	var over atomic.Bool
	var wg sync.WaitGroup
	for range goroutines {
		wg.Go(func() {
			for range 2000 {
				if p.Acquire(0) {
					if held.Add(1) > limit {
						over.Store(true)
					}
					held.Add(-1)
					p.Release(0)
				}
			}
		})
	}
	wg.Wait()
	if over.Load() || p.Active(0) != 0 {
		t.Errorf("the limit was passed: %t; active in the end: %d", over.Load(), p.Active(0))
	}
}
