package balance

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/cespare/xxhash/v2"

	"github.com/tproxyd/tproxyd/internal/golden"
)

// pool is a Pool of members with these weights, called a, b, and so on.
func pool(t *testing.T, a Algorithm, size int, weights ...int) *Pool {
	t.Helper()
	c := Config{Algorithm: a, TableSize: size}
	for i, w := range weights {
		c.Members = append(c.Members, Member{Name: fmt.Sprintf("%c%d", 'a'+i%26, i/26), Weight: w})
	}
	p, err := NewPool(c)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func slots(table []uint16, n int) []int {
	got := make([]int, n)
	for _, m := range table {
		got[m]++
	}
	return got
}

// Every slot has an owner, and every member its share of them to within a turn.
func TestMaglevShares(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 1))
	for _, size := range []int{3, 251, 65537} {
		for _, n := range []int{1, 2, 3, 10, 100} {
			if n > size {
				continue
			}
			for _, heaviest := range []int{1, 7, MaxWeight} {
				weights := make([]int, n)
				sum := 0
				for i := range weights {
					weights[i] = 1 + random.IntN(heaviest)
					sum += weights[i]
				}
				table := pool(t, Maglev, size, weights...).All().current.Load().table
				if len(table) != size || slices.Contains(table, empty) {
					t.Fatalf("size %d, weights %v: %d slots, or empty ones", size, weights, len(table))
				}
				for i, got := range slots(table, n) {
					// One for the rounding of turns, one for the last round.
					if want := float64(size) * float64(weights[i]) / float64(sum); math.Abs(float64(got)-want) > 2 {
						t.Errorf("size %d, weights %v: %d has %d slots, want %.1f", size, weights, i, got, want)
					}
				}
			}
		}
	}
}

// The tables must stay what they are, see TestChoicesGolden.
func TestTablesGolden(t *testing.T) {
	var out strings.Builder
	for _, slot := range pool(t, Maglev, 251, 1, 2, 3, 4).All().current.Load().table {
		fmt.Fprintf(&out, "%c", 'a'+slot)
	}
	out.WriteByte('\n')
	digest := func(p *Pool) {
		var b []byte
		for _, slot := range p.All().current.Load().table {
			b = binary.LittleEndian.AppendUint16(b, slot)
		}
		fmt.Fprintf(&out, "%v of %d: %016x\n", p.algorithm, p.Len(), xxhash.Sum64(b))
	}
	for _, a := range []Algorithm{Maglev, SourceHash} {
		for _, n := range []int{1, 3, 10, 100} {
			weights := make([]int, n)
			for i := range weights {
				weights[i] = 1 + i*41%MaxWeight
			}
			digest(pool(t, a, 0, weights...))
		}
	}
	golden.Compare(t, "tables.golden", out.String())
}

// A table made from an older one is the table made from nothing.
func TestRendezvousIncremental(t *testing.T) {
	const n = 12
	random := rand.New(rand.NewPCG(2, 2))
	weights := make([]int, n)
	old := pool(t, SourceHash, 0, weights...)
	v := old.All()
	for round := range 25 {
		for range 1 + random.IntN(3) {
			w := random.IntN(MaxWeight + 1)
			weights[random.IntN(n)] = w * random.IntN(2)
		}
		if round%8 == 7 {
			clear(weights)
		}
		if err := old.Update(func(s []State) {
			for i := range s {
				s[i].Weight = weights[i]
			}
		}); err != nil {
			t.Fatal(err)
		}
		want := pool(t, SourceHash, 0, weights...).All().current.Load().table
		if !slices.Equal(v.current.Load().table, want) {
			t.Fatalf("round %d, weights %v: the tables differ", round, weights)
		}
	}
}

// Of two bids one beats the other, even if they tie: else the order in which a
// node looks at them would count.
func TestBidsAreOrdered(t *testing.T) {
	c := contest{logs: newLogarithms()}
	random := rand.New(rand.NewPCG(4, 4))
	for range 20000 {
		a := bid{rank: 1, weight: 1 + random.Uint64N(3), hash: random.Uint64() >> random.IntN(64)}
		b := bid{rank: 2, weight: 1 + random.Uint64N(3), hash: a.hash - random.Uint64N(3)}
		if c.beats(&a, &b) == c.beats(&b, &a) {
			t.Fatalf("%+v and %+v: neither is first, or both", a, b)
		}
		if a.weight == b.weight && c.beats(&a, &b) != (a.hash >= b.hash) {
			t.Fatalf("%+v and %+v: not by hash, then by rank", a, b)
		}
	}
}

// A change that is none for a View leaves it alone.
func TestUnchangedViews(t *testing.T) {
	p := pool(t, Maglev, 251, 1, 1, 1)
	v, w := p.View([]int{0, 1}), p.View([]int{2})
	was, other := v.current.Load(), w.current.Load()
	p.SetUp(0, true)
	p.SetUp(2, false)
	if v.current.Load() != was || w.current.Load() == other {
		t.Error("a view changed without a change of its members, or did not with one")
	}
}

func TestLogarithms(t *testing.T) {
	logs := newLogarithms()
	last := uint64(math.MaxUint64)
	check := func(x uint64) {
		got := float64(logs.negative(x)) / (1 << 32)
		want := -math.Log2(float64(x) / (1 << 64))
		if x > math.MaxUint64-1<<40 {
			want = (1 - float64(x>>1)/(1<<63)) / math.Ln2 // float64 is too coarse for more
		}
		if math.Abs(got-want) > 0.004*want+1e-8 {
			t.Errorf("-log2(%#x / 2^64): %v, want %v", x, got, want)
		}
	}
	for shift := range 64 {
		for _, x := range []uint64{1 << shift, 1<<shift | 1<<shift>>1, 1<<shift | 1<<shift>>3 | 1, 2<<shift - 1} {
			check(x)
			if shift < 62 {
				if now := logs.negative(x); now > last {
					t.Errorf("%#x: %d, above %d", x, now, last)
				}
			}
		}
	}
	if zero, one := logs.negative(0), logs.negative(1); zero != one || one != 64<<32 {
		t.Errorf("0 gives %#x, 1 %#x, want %#x", zero, one, uint64(64<<32))
	}
}

func TestPrime(t *testing.T) {
	var got []int
	for n := -3; n < 32; n++ {
		if prime(n) {
			got = append(got, n)
		}
	}
	if want := []int{2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31}; !slices.Equal(got, want) {
		t.Errorf("got %v", got)
	}
	if !prime(DefaultTableSize) || !prime(MaxTableSize) {
		t.Error("the default or the largest table size is not a prime number")
	}
}

// Turns are as many as the weights say, and evenly spaced.
func TestSequence(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 3))
	for _, n := range []int{1, 2, 3, 10, 40} {
		for _, heaviest := range []int{1, 5, MaxWeight} {
			weights, sum := make([]int, n), 0
			for i := range weights {
				weights[i] = 1 + random.IntN(heaviest)
			}
			weights[0] = 1 // no common divisor
			for _, w := range weights {
				sum += w
			}
			turns := pool(t, RoundRobin, 0, weights...).All().current.Load().sequence
			if got := slots(turns, n); !slices.Equal(got, weights) {
				t.Fatalf("weights %v: turns %v", weights, got)
			}
			// How far anybody is ahead of its share less how far behind, over all
			// places, is the most it is off in any stretch.
			count, ahead, behind := make([]int, n), make([]float64, n), make([]float64, n)
			for place, m := range turns {
				count[m]++
				for i := range n {
					off := float64(count[i]) - float64((place+1)*weights[i])/float64(sum)
					ahead[i], behind[i] = max(ahead[i], off), min(behind[i], off)
				}
			}
			for i := range n {
				if off := ahead[i] - behind[i]; off > 3 {
					t.Errorf("weights %v: %d is %.2f turns off its share in some stretch", weights, i, off)
				}
			}
		}
	}
}

func TestSequenceIsBounded(t *testing.T) {
	if got := pool(t, RoundRobin, 0, 256, 128, 256).All().current.Load().sequence; len(got) != 5 {
		t.Errorf("weights 256, 128, 256 make %d turns, want 5", len(got))
	}
	const n = 3000
	all := make([]candidate, n)
	sum := 0
	for i := range all {
		all[i].weight = int64(1 + i%MaxWeight)
		sum += 1 + i%MaxWeight
	}
	order := sequence(all)
	if len(order) > maxSequence || len(order) < maxSequence/2 {
		t.Fatalf("%d turns", len(order))
	}
	for i, got := range slots(order, n) {
		want := float64(len(order)) * float64(all[i].weight) / float64(sum)
		if math.Abs(float64(got)-want) > 1+want/50 {
			t.Errorf("%d of weight %d has %d turns, want %.1f", i, all[i].weight, got, want)
		}
	}
}
