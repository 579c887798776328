package balance_test

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tproxyd/tproxyd/internal/balance"
)

// What holds for every algorithm: a flow is offered every member that may be
// chosen, and none twice.
func TestAllAreOffered(t *testing.T) {
	for _, a := range algorithms {
		for n := range balance.MaxTries + 1 {
			s := newPool(t, balance.Config{Algorithm: a, Members: members(n)}).All().Selector(3)
			for j := range 40 {
				got := pickAll(s, key(j))
				slices.Sort(got)
				var want []int
				for i := range n {
					want = append(want, i)
				}
				if diff := cmp.Diff(want, got); diff != "" {
					t.Fatalf("%v of %d (-want +got):\n%s", a, n, diff)
				}
			}
		}
	}
}

// A member of weight 1 is found behind ten of weight 256 that were tried.
func TestLightMemberIsFound(t *testing.T) {
	c := weighted(256, 256, 256, 256, 256, 256, 256, 256, 256, 256, 1)
	for _, a := range algorithms {
		s := newPool(t, balance.Config{Algorithm: a, Members: c}).All().Selector(0)
		for j := range 40 {
			if got := pickAll(s, key(j)); len(got) != len(c) {
				t.Fatalf("%v: offered %v", a, got)
			}
		}
	}
}

func TestEligible(t *testing.T) {
	backup := func(all []balance.Member) { all[2].Backup, all[3].Backup = true, true }
	for name, c := range map[string]struct {
		members func([]balance.Member)
		change  func([]balance.State)
		want    []int // offered to a flow
	}{
		"one down": {change: func(s []balance.State) { s[1].Up = false }, want: []int{0, 2, 3}},
		"begins down": {
			members: func(all []balance.Member) { all[2].Down = true }, want: []int{0, 1, 3},
		},
		"weight 0":     {change: func(s []balance.State) { s[3].Weight = 0 }, want: []int{0, 1, 2}},
		"all weight 0": {change: func(s []balance.State) { clear(s) }},
		"all down": {change: func(s []balance.State) {
			for i := range s {
				s[i].Up = false
			}
		}},
		"backups only": {
			members: backup, change: func(s []balance.State) { s[0].Up, s[1].Weight = false, 0 }, want: []int{2, 3},
		},
		"one backup": {members: backup, change: func(s []balance.State) {
			s[0].Up, s[1].Up, s[3].Up = false, false, false
		}, want: []int{2}},
		"backups after all others": {members: backup, want: []int{0, 1, 2, 3}},
	} {
		for _, a := range algorithms {
			all := members(4)
			if c.members != nil {
				c.members(all)
			}
			p := newPool(t, balance.Config{Algorithm: a, Members: all})
			s := p.All().Selector(1)
			before := pickAll(s, key(0))
			if c.change != nil {
				if err := p.Update(c.change); err != nil {
					t.Fatal(err)
				}
			}
			for j := range 30 {
				got := pickAll(s, key(j))
				if all[2].Backup && len(got) == 4 && (got[0] > 1 || got[1] > 1) {
					t.Errorf("%s, %v: %v: a backup comes before the others", name, a, got)
				}
				slices.Sort(got)
				if diff := cmp.Diff(c.want, got); diff != "" {
					t.Errorf("%s, %v (-want +got):\n%s", name, a, diff)
				}
			}
			// And back again.
			if err := p.Update(func(s []balance.State) {
				for i := range s {
					s[i] = balance.State{Weight: 1, Up: !all[i].Down}
				}
			}); err != nil {
				t.Fatal(err)
			}
			if got := pickAll(s, key(0)); len(got) != len(before) {
				t.Errorf("%s, %v: afterwards %v are offered, before %v", name, a, got, before)
			}
		}
	}
}

// A member that is full is passed over, and waited for rather than replaced by a
// backup.
func TestFull(t *testing.T) {
	for _, a := range algorithms {
		all := members(3)
		for i := range all {
			all[i].Limit = 2
		}
		all[2].Backup = true
		p := newPool(t, balance.Config{Algorithm: a, Members: all})
		s := p.All().Selector(0)
		for j := range 4 {
			k := key(j)
			if i, ok := s.Pick(&k, &balance.Set{}); !ok || !p.Acquire(i) {
				t.Fatalf("%v: flow %d: picked %d, %t", a, j, i, ok)
			}
		}
		if got := []int{p.Active(0), p.Active(1), p.Active(2)}; !slices.Equal(got, []int{2, 2, 0}) {
			t.Errorf("%v: active %v", a, got)
		}
		if got := pickAll(s, key(4)); got != nil {
			t.Errorf("%v: offered %v although all are full", a, got)
		}
		p.Release(1)
		if got := pickAll(s, key(4)); !slices.Equal(got, []int{1}) {
			t.Errorf("%v: offered %v, want 1, which has room", a, got)
		}
	}
}

func TestRoundRobin(t *testing.T) {
	for _, c := range []struct {
		weights []int
		worker  int
		want    []int
	}{
		{[]int{1, 1, 1}, 0, []int{0, 1, 2, 0, 1, 2}},
		{[]int{7, 7, 7}, 5, []int{2, 0, 1, 2, 0, 1}},
		{[]int{5, 1, 1}, 0, []int{0, 0, 0, 1, 0, 0, 2, 0}},
		{[]int{2, 0, 4}, 0, []int{0, 2, 2, 0, 2, 2}},
	} {
		s := newPool(t, balance.Config{Members: weighted(c.weights...)}).All().Selector(c.worker)
		var got []int
		for range c.want {
			i, _ := s.Pick(nil, &balance.Set{})
			got = append(got, i)
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("weights %v, worker %d (-want +got):\n%s", c.weights, c.worker, diff)
		}
	}
}

// A weight that goes up and down all the time, as in a slow start, does not
// favour the members at the beginning.
func TestChangesDoNotFavour(t *testing.T) {
	p := newPool(t, balance.Config{Members: members(10)})
	s := p.All().Selector(0)
	got := make([]int, 10)
	for j := range 1000 {
		if err := p.SetWeight(9, 1+j%2); err != nil {
			t.Fatal(err)
		}
		for range 3 {
			i, _ := s.Pick(nil, &balance.Set{})
			got[i]++
		}
	}
	// 3000 picks at a mean weight of 10.5: 286 each.
	for i, n := range got[:9] {
		if n < 250 || n > 320 {
			t.Errorf("member %d was picked %d times: %v", i, n, got)
		}
	}
}

// Flows that stay are spread by weight; so are flows that end at once.
func TestLeastConn(t *testing.T) {
	weights := []int{1, 2, 3, 10, 0}
	for _, stay := range []bool{true, false} {
		p := newPool(t, balance.Config{Algorithm: balance.LeastConn, Members: weighted(weights...)})
		workers := []*balance.Selector{p.All().Selector(0), p.All().Selector(1)}
		got := make([]int, len(weights))
		for j := range 1600 {
			i, ok := workers[j%2].Pick(nil, &balance.Set{})
			if !ok || !p.Acquire(i) {
				t.Fatalf("picked %d, %t", i, ok)
			}
			got[i]++
			if !stay {
				p.Release(i)
			}
		}
		for i, w := range weights {
			if n := got[i] - 100*w; n < -1 || n > 1 {
				t.Errorf("flows stay: %t: member %d of weight %d got %d", stay, i, w, got[i])
			}
		}
	}
}

// It is truly the least loaded, wherever that is and whoever was tried.
func TestLeastConnFindsTheLeast(t *testing.T) {
	const n = 13
	p := newPool(t, balance.Config{Algorithm: balance.LeastConn, Members: members(n)})
	for i := range n {
		for range 3 + (i*5)%n {
			p.Acquire(i)
		}
	}
	s := p.All().Selector(0)
	for range 3 * n { // begins at every member
		var tried balance.Set
		last := 0
		for range balance.MaxTries {
			i, ok := s.Pick(nil, &tried)
			if !ok || p.Active(i) < last || p.Active(i) != 3+tried.Len() {
				t.Fatalf("picked %d with %d flows after one with %d", i, p.Active(i), last)
			}
			last = p.Active(i)
			tried.Add(i)
		}
	}
}

func TestRandomTwo(t *testing.T) {
	weights := []int{1, 2, 3, 4}
	p := newPool(t, balance.Config{Algorithm: balance.RandomTwo, Members: weighted(weights...), Seed: 1})
	for i, n := range counts(t, p, 20000) { // nobody has a flow: the first lot counts
		if want := 2000 * weights[i]; n < want*9/10 || n > want*11/10 {
			t.Errorf("idle: member %d of weight %d was picked %d times, want about %d", i, weights[i], n, want)
		}
	}

	// Of flows that stay nobody gets far from its share: with one lot instead
	// of two the most loaded would be some 30 above.
	p = newPool(t, balance.Config{Algorithm: balance.RandomTwo, Members: members(10), Seed: 1})
	s := p.All().Selector(0)
	for range 2000 {
		i, _ := s.Pick(nil, &balance.Set{})
		p.Acquire(i)
	}
	for i := range 10 {
		if n := p.Active(i); n < 190 || n > 210 {
			t.Errorf("member %d has %d flows of 2000", i, n)
		}
	}

	// Workers draw different lots, and the same ones the next time.
	draw := func(worker int) (got []int) {
		s := newPool(t, balance.Config{Algorithm: balance.RandomTwo, Members: members(9), Seed: 7}).All().Selector(worker)
		for range 50 {
			i, _ := s.Pick(nil, &balance.Set{})
			got = append(got, i)
		}
		return got
	}
	if slices.Equal(draw(0), draw(1)) || !slices.Equal(draw(1), draw(1)) {
		t.Error("lots do not depend on the worker, or on more than the worker")
	}
}

func TestFirst(t *testing.T) {
	p := newPool(t, balance.Config{Algorithm: balance.First, Members: weighted(0, 1, 256, 1)})
	if got := pickAll(p.All().Selector(2), key(0)); !slices.Equal(got, []int{1, 2, 3}) {
		t.Errorf("offered %v", got)
	}
}

func TestAllocations(t *testing.T) {
	for _, a := range algorithms {
		all := members(100)
		all[99].Backup = true
		p := newPool(t, balance.Config{Algorithm: a, Members: all})
		s := p.All().Selector(0)
		var n int
		if got := testing.AllocsPerRun(1000, func() {
			n++
			k := key(n)
			var tried balance.Set
			for range balance.MaxTries {
				i, ok := s.Pick(&k, &tried)
				if !ok || !p.Acquire(i) {
					t.Fatalf("%v: picked %d, %t", a, i, ok)
				}
				tried.Add(i)
				p.Release(i)
			}
		}); got != 0 {
			t.Errorf("%v: %v allocations", a, got)
		}
	}
}
