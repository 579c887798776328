package balance_test

import (
	"fmt"
	"hash/fnv"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/tproxyd/tproxyd/internal/balance"
	"github.com/tproxyd/tproxyd/internal/golden"
)

const manyKeys = 100_000

var consistent = []balance.Algorithm{balance.SourceHash, balance.Maglev}

// names are whom the first n clients get.
func names(t testing.TB, p *balance.Pool, n int) []string {
	t.Helper()
	s := p.All().Selector(0)
	got := make([]string, n)
	for j := range got {
		k := balance.Key{Client: netip.AddrPortFrom(client(j), 1024)}
		i, ok := s.Pick(&k, &balance.Set{})
		if !ok {
			t.Fatalf("client %d: none picked", j)
		}
		got[j] = p.Name(i)
	}
	return got
}

// moved is how many of the clients get another member, and how many of these
// had neither left nor come.
func moved(a, b []string, changed string) (all, others int) {
	for i := range a {
		if a[i] != b[i] {
			all++
			if a[i] != changed && b[i] != changed {
				others++
			}
		}
	}
	return all, others
}

// Over 100,000 keys nobody is more than 2 % off its share, if the shares are
// large enough for that to be more than the chance in the keys: one in 20,
// whose standard deviation is 1.4 %, is the smallest for which it may be asked.
func TestMaglevSpread(t *testing.T) {
	for _, weights := range [][]int{
		{1}, {1, 1}, {1, 1, 1}, {10, 20, 30}, {256, 128, 64}, {3, 0, 5}, {1, 1, 1, 1, 1},
	} {
		sum := 0
		for _, w := range weights {
			sum += w
		}
		for _, seed := range []uint64{0, 1, 1 << 63} {
			p := newPool(t, balance.Config{Algorithm: balance.Maglev, Members: weighted(weights...), Seed: seed})
			for i, n := range counts(t, p, manyKeys) {
				want := float64(manyKeys) * float64(weights[i]) / float64(sum)
				if off := float64(n) - want; off < -0.02*want || off > 0.02*want {
					t.Errorf("weights %v, seed %d: member %d got %d, want %.0f", weights, seed, i, n, want)
				}
			}
		}
	}
}

// With many members the keys of each are too few to tell 2 %; it is 2 % and
// four standard deviations of their number.
func TestSpreadOverMany(t *testing.T) {
	for _, a := range consistent {
		for n := 10; n <= 100; n += 45 {
			p := newPool(t, balance.Config{Algorithm: a, Members: members(n)})
			want := manyKeys / n
			// A share of SourceHash is itself drawn, in 65536 lots.
			variance := want
			if a == balance.SourceHash {
				variance += want * want * n / 65536
			}
			for i, got := range counts(t, p, manyKeys) {
				off := got - want - want/50
				if got < want {
					off = want - got - want/50
				}
				if off > 0 && off*off > 16*variance {
					t.Errorf("%v of %d: member %d got %d, want %d", a, n, i, got, want)
				}
			}
		}
	}
}

func TestSourceHashWeights(t *testing.T) {
	weights := []int{256, 64, 16, 1, 0}
	p := newPool(t, balance.Config{Algorithm: balance.SourceHash, Members: weighted(weights...)})
	for i, n := range counts(t, p, manyKeys) {
		want := manyKeys * weights[i] / 337
		if off := n - want; off*off > 16*3*want {
			t.Errorf("member %d of weight %d got %d, want %d", i, weights[i], n, want)
		}
	}
}

// A member that goes takes with it its own keys. Of the others Maglev moves 2 %
// at most, SourceHash none. When it comes back, all is as before.
func TestDisruption(t *testing.T) {
	for _, a := range consistent {
		for _, n := range []int{2, 3, 10, 100} {
			p := newPool(t, balance.Config{Algorithm: a, Members: members(n)})
			before := names(t, p, manyKeys)
			for _, gone := range []int{0, n - 1} {
				p.SetUp(gone, false)
				after := names(t, p, manyKeys)
				if slices.Contains(after, p.Name(gone)) {
					t.Errorf("%v of %d: member %d is picked although it is down", a, n, gone)
				}
				all, others := moved(before, after, p.Name(gone))
				if all > manyKeys/n+manyKeys/50 || a == balance.SourceHash && others > 0 {
					t.Errorf("%v of %d: without %d, %d keys move, %d of them between others", a, n, gone, all, others)
				}
				p.SetUp(gone, true)
				if all, _ := moved(before, names(t, p, manyKeys), ""); all != 0 {
					t.Errorf("%v of %d: with %d back, %d keys are elsewhere than before", a, n, gone, all)
				}
			}
		}
	}
}

// Less weight gives keys away and takes none; more weight takes some and gives
// none away.
func TestChangeOfWeight(t *testing.T) {
	p := newPool(t, balance.Config{Algorithm: balance.SourceHash, Members: weighted(10, 10, 10, 10)})
	tables := [][]string{names(t, p, manyKeys)}
	for _, w := range []int{5, 20, 10} {
		if err := p.SetWeight(1, w); err != nil {
			t.Fatal(err)
		}
		now := names(t, p, manyKeys)
		if all, others := moved(tables[len(tables)-1], now, p.Name(1)); all == 0 || others != 0 {
			t.Errorf("weight %d: %d keys move, %d of them between others", w, all, others)
		}
		tables = append(tables, now)
	}
	if all, _ := moved(tables[0], tables[3], ""); all != 0 {
		t.Errorf("with the weight of the beginning %d keys are elsewhere", all)
	}
}

// Nodes whose files list the backends in another order, and that have seen
// other changes, choose alike, for first choices and for further ones.
func TestNodesAgree(t *testing.T) {
	for _, a := range consistent {
		all := weighted(1, 2, 3, 4, 5, 6, 7, 8)
		all[6].Backup, all[7].Backup = true, true
		reversed := slices.Clone(all)
		slices.Reverse(reversed)
		one := newPool(t, balance.Config{Algorithm: a, Members: all, Seed: 5})
		two := newPool(t, balance.Config{Algorithm: a, Members: reversed, Seed: 5})
		other := newPool(t, balance.Config{Algorithm: a, Members: all, Seed: 6})
		sOne, sTwo := one.All().Selector(0), two.All().Selector(7)

		one.SetUp(2, false)
		one.SetUp(4, false)
		two.SetUp(0, false)
		one.SetUp(4, true)
		two.SetUp(5, false)
		two.SetUp(0, true)
		for j := range 2000 {
			got, want := pickAll(sTwo, key(j)), pickAll(sOne, key(j))
			for i := range got {
				got[i] = 7 - got[i]
			}
			if !slices.Equal(got, want) {
				t.Fatalf("%v: flow %d: %v on one node, %v on the other", a, j, want, got)
			}
		}
		if same, _ := moved(names(t, one, 1000), names(t, other, 1000), ""); same < 500 {
			t.Errorf("%v: another seed moves only %d keys of 1000", a, same)
		}
	}
}

// What a member that was tried cannot take goes to all others.
func TestSecondChoices(t *testing.T) {
	for _, a := range consistent {
		p := newPool(t, balance.Config{Algorithm: a, Members: members(5)})
		s := p.All().Selector(0)
		var tried balance.Set
		tried.Add(2)
		second := make([]int, 5)
		for j := range 20000 {
			k := balance.Key{Client: netip.AddrPortFrom(client(j), 1024)}
			if i, _ := s.Pick(&k, &balance.Set{}); i == 2 {
				i, _ = s.Pick(&k, &tried)
				second[i]++
			}
		}
		for i, n := range second {
			if i != 2 && (n < 850 || n > 1150) {
				t.Errorf("%v: of about 4000 second choices %d got %d: %v", a, i, n, second)
			}
		}
	}
}

// What counts in a key and what does not.
func TestKeys(t *testing.T) {
	base := balance.Key{
		Client:      netip.MustParseAddrPort("198.18.1.2:40000"),
		Destination: netip.MustParseAddrPort("203.0.113.10:443"),
		Protocol:    6,
	}
	with := func(change func(*balance.Key)) balance.Key {
		k := base
		change(&k)
		return k
	}
	byFlow := balance.Config{Algorithm: balance.Maglev}
	byClient := balance.Config{Algorithm: balance.Maglev, Hash: balance.ClientIP}
	bySource := balance.Config{Algorithm: balance.SourceHash}
	clientPort := with(func(k *balance.Key) { k.Client = netip.MustParseAddrPort("198.18.1.2:40001") })
	destination := with(func(k *balance.Key) { k.Destination = netip.MustParseAddrPort("203.0.113.11:443") })
	port := with(func(k *balance.Key) { k.Destination = netip.MustParseAddrPort("203.0.113.10:80") })
	protocol := with(func(k *balance.Key) { k.Protocol = 17 })
	mapped := with(func(k *balance.Key) { k.Client = netip.MustParseAddrPort("[::ffff:198.18.1.2]:40000") })
	for _, c := range []struct {
		name   string
		config balance.Config
		key    balance.Key
		same   bool
	}{
		{"client port", byFlow, clientPort, false},
		{"destination", byFlow, destination, false},
		{"destination port", byFlow, port, false},
		{"protocol", byFlow, protocol, false},
		{"mapped", byFlow, mapped, true},
		{"client port", byClient, clientPort, true},
		{"destination", byClient, destination, true},
		{"protocol", byClient, protocol, true},
		{"mapped", byClient, mapped, true},
		{"client port", bySource, clientPort, true},
		{"destination", bySource, destination, true},
		{"mapped", bySource, mapped, true},
	} {
		same := true
		for seed := range uint64(6) { // with one seed it could be the same by chance
			c.config.Members, c.config.Seed, c.config.TableSize = members(10), seed, 251
			s := newPool(t, c.config).All().Selector(0)
			a, _ := s.Pick(&base, &balance.Set{})
			b, _ := s.Pick(&c.key, &balance.Set{})
			same = same && a == b
		}
		if same != c.same {
			t.Errorf("%v by %v: another %s makes no difference: %t, want %t",
				c.config.Algorithm, c.config.Hash, c.name, same, c.same)
		}
	}
}

// The choices of 20,000 flows, first and further ones, which must stay what they are: nodes of different
// versions choose alike. A change here cuts the flows that move from one node to
// the other in the middle of an upgrade.
func TestChoicesGolden(t *testing.T) {
	var out strings.Builder
	for _, c := range []balance.Config{
		{Algorithm: balance.SourceHash},
		{Algorithm: balance.Maglev},
		{Algorithm: balance.Maglev, Hash: balance.ClientIP, Seed: 0x1234_5678_9abc_def0, TableSize: 251},
	} {
		c.Members = []balance.Member{
			{Name: "198.18.2.1:80", Weight: 1},
			{Name: "198.18.2.2:80", Weight: 2},
			{Name: "[2001:db8::3]:80", Weight: 256},
			{Name: "web-4", Weight: 100},
			{Name: "web-5", Weight: 100},
			{Name: "gone", Weight: 100, Down: true},
		}
		p := newPool(t, c)
		s := p.All().Selector(0)
		fmt.Fprintf(&out, "%v by %v, seed %d, table size %d\n", c.Algorithm, c.Hash, c.Seed, c.TableSize)
		digest := fnv.New64a()
		for j := range 20000 {
			k := key(j)
			if j%2 == 1 {
				k.Client = netip.AddrPortFrom(netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 13: byte(j >> 12), 14: byte(j >> 4), 15: byte(j)}), k.Client.Port())
			}
			offered := pickAll(s, k)
			if j%1250 < 2 {
				fmt.Fprintf(&out, "  %v -> %s\n", k.Client, p.Name(offered[0]))
			}
			fmt.Fprintln(digest, offered)
		}
		fmt.Fprintf(&out, "  all: %016x\n", digest.Sum64())
	}
	golden.Compare(t, "choices.golden", out.String())
}
