package balance_test

import (
	"testing"

	"github.com/tproxyd/tproxyd/internal/balance"
)

func BenchmarkPick(b *testing.B) {
	for _, a := range algorithms {
		b.Run(a.String(), func(b *testing.B) {
			p := newPool(b, balance.Config{Algorithm: a, Members: members(100)})
			for i := range p.Len() {
				for range 100 + i*7%11 { // nobody is idle: the dearest case of least-conn
					p.Acquire(i)
				}
			}
			s := p.All().Selector(0)
			keys := make([]balance.Key, 1024)
			for i := range keys {
				keys[i] = key(i * 77)
			}
			var n int
			b.ReportAllocs()
			for b.Loop() {
				var tried balance.Set
				if _, ok := s.Pick(&keys[n&1023], &tried); !ok {
					b.Fatal("none picked")
				}
				n++
			}
		})
	}
}

// BenchmarkChange is what a member that goes down, or comes up, costs whoever
// found it out.
func BenchmarkChange(b *testing.B) {
	for _, a := range algorithms {
		b.Run(a.String(), func(b *testing.B) {
			p := newPool(b, balance.Config{Algorithm: a, Members: members(100)})
			p.All()
			var up bool
			for b.Loop() {
				p.SetUp(50, up)
				up = !up
			}
		})
	}
}
