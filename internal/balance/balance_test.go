package balance_test

import (
	"fmt"
	"testing"

	"github.com/tproxyd/tproxyd/internal/balance"
)

func Example() {
	p := balance.NewRoundRobin(3, 0)
	first := balance.Set{}
	for range 2 { // the first backend it is given refuses, so there is a second
		if i, ok := p.Pick(&first); ok {
			first.Add(i)
			fmt.Println(i)
		}
	}
	var second balance.Set
	fmt.Println(p.Pick(&second))
	// Output:
	// 0
	// 1
	// 2 true
}

func TestSpread(t *testing.T) {
	for n := 1; n <= 7; n++ {
		for first := range 9 {
			p := balance.NewRoundRobin(n, first)
			counts := make([]int, n)
			for i := range 10 * n {
				got, ok := p.Pick(&balance.Set{})
				if !ok || got < 0 || got >= n {
					t.Fatalf("n %d: picked %d, %v", n, got, ok)
				}
				if i == 0 && got != first%n {
					t.Errorf("n %d, first %d: began at %d", n, first, got)
				}
				counts[got]++
			}
			for i, c := range counts {
				if c != 10 {
					t.Errorf("n %d, first %d: backend %d was picked %d times of %d", n, first, i, c, 10*n)
				}
			}
		}
	}
}

func TestTried(t *testing.T) {
	const n = 5
	p := balance.NewRoundRobin(n, 3)
	for range 20 {
		var tried balance.Set
		for want := range n {
			if tried.Len() != want {
				t.Fatalf("%d tried, want %d", tried.Len(), want)
			}
			i, ok := p.Pick(&tried)
			if !ok || tried.Has(i) {
				t.Fatalf("after %d tries: %d, %v", want, i, ok)
			}
			tried.Add(i)
			tried.Add(i) // twice is once
		}
		if i, ok := p.Pick(&tried); ok {
			t.Fatalf("picked %d after all were tried", i)
		}
	}
	if i, ok := balance.NewRoundRobin(0, 7).Pick(&balance.Set{}); ok {
		t.Errorf("picked %d of none", i)
	}
}

func TestSetIsBounded(t *testing.T) {
	var s balance.Set
	for i := range 3 * balance.MaxTries {
		s.Add(1000 + i)
	}
	if s.Len() != balance.MaxTries || !s.Has(1000) || !s.Has(1000+balance.MaxTries-1) || s.Has(1000+balance.MaxTries) || s.Has(0) {
		t.Errorf("%d members: %v", s.Len(), s)
	}
}

func TestAllocations(t *testing.T) {
	p := balance.NewRoundRobin(4, 0)
	if n := testing.AllocsPerRun(100, func() {
		var tried balance.Set
		for {
			i, ok := p.Pick(&tried)
			if !ok {
				return
			}
			tried.Add(i)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkPick(b *testing.B) {
	p := balance.NewRoundRobin(8, 0)
	for b.Loop() {
		var tried balance.Set
		p.Pick(&tried)
	}
}
