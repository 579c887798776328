package balance_test

import (
	"sync"
	"testing"

	"github.com/tproxyd/tproxyd/internal/balance"
)

// Selectors of several goroutines see a change with their next choice, while
// further changes are made and all of them change the loads.
func TestChangesAreSeen(t *testing.T) {
	const workers, n, rounds = 4, 5, 20
	for _, a := range algorithms {
		p := newPool(t, balance.Config{Algorithm: a, Members: members(n), TableSize: 251})
		var selectors []*balance.Selector
		for w := range workers {
			selectors = append(selectors, p.All().Selector(w))
		}
		for round := range rounds {
			down, flapping, changing := round%n, (round+1)%n, (round+2)%n
			p.SetUp(down, false)
			var wg sync.WaitGroup
			for _, s := range selectors {
				wg.Go(func() {
					for j := range 200 {
						k := key(j)
						i, ok := s.Pick(&k, &balance.Set{})
						if !ok || i == down || !p.Acquire(i) {
							t.Errorf("%v: picked %d, %t while %d is down", a, i, ok, down)
							return
						}
						defer p.Release(i)
					}
				})
			}
			p.SetUp(flapping, false)
			if err := p.SetWeight(changing, 1+round); err != nil {
				t.Error(err)
			}
			p.SetUp(flapping, true)
			wg.Wait()
			p.SetUp(down, true)
		}
		for i := range n {
			if got := p.Active(i); got != 0 {
				t.Errorf("%v: member %d has %d flows in the end", a, i, got)
			}
		}
	}
}

// FuzzPick changes states and loads at will. A choice keeps the rules whatever
// was done.
func FuzzPick(f *testing.F) {
	f.Add([]byte{0, 1, 5, 9, 0x80, 3, 0x41})
	f.Fuzz(func(t *testing.T, ops []byte) {
		if len(ops) < 2 || len(ops) > 200 {
			return
		}
		a := algorithms[int(ops[0])%len(algorithms)]
		all := members(1 + int(ops[1])%8)
		for i := range all {
			all[i].Backup = ops[1]>>3&1 == 1 && i%3 == 0
			all[i].Limit = int(ops[1]>>4) % 4
		}
		p := newPool(t, balance.Config{Algorithm: a, Members: all, TableSize: 251, Seed: uint64(ops[0])})
		s := p.All().Selector(int(ops[0] >> 4))
		var tried balance.Set
		for at, op := range ops[2:] {
			i := int(op>>3) % len(all)
			switch op & 7 {
			case 0:
				p.SetUp(i, !p.State(i).Up)
			case 1:
				if err := p.SetWeight(i, at*int(op)%257); err != nil {
					t.Fatal(err)
				}
			case 2:
				if p.Active(i) > 0 {
					p.Release(i)
				}
			case 3:
				tried = balance.Set{}
			default:
				k := key(at * int(op))
				got, ok := s.Pick(&k, &tried)
				checkPick(t, p, all, &tried, got, ok)
				if ok {
					if !p.Acquire(got) {
						t.Fatalf("%v: %d is full but was picked", a, got)
					}
					tried.Add(got)
				}
			}
		}
	})
}

// checkPick holds the rules of the package against one choice.
func checkPick(t *testing.T, p *balance.Pool, all []balance.Member, tried *balance.Set, got int, ok bool) {
	t.Helper()
	eligible := func(i int) bool { return p.State(i).Up && p.State(i).Weight > 0 }
	full := func(i int) bool { return all[i].Limit > 0 && p.Active(i) >= all[i].Limit }
	var free, untried, backups int // others to choose, others not tried, backups to choose
	for i := range all {
		switch {
		case !eligible(i) || tried.Has(i):
		case all[i].Backup && !full(i):
			backups++
		case all[i].Backup:
		default:
			untried++
			if !full(i) {
				free++
			}
		}
	}
	switch {
	case ok && (!eligible(got) || tried.Has(got) || full(got)):
		t.Errorf("picked %d: %+v, tried %t, full %t", got, p.State(got), tried.Has(got), full(got))
	case ok && all[got].Backup && untried > 0:
		t.Errorf("picked the backup %d although %d others are left", got, untried)
	case !ok && (free > 0 || untried == 0 && backups > 0):
		t.Errorf("none picked of %d others, %d free, and %d backups", untried, free, backups)
	}
}
