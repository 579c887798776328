package balance_test

import (
	"fmt"
	"net/netip"
	"testing"

	"go.uber.org/goleak"

	"github.com/tproxyd/tproxyd/internal/balance"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var algorithms = []balance.Algorithm{
	balance.RoundRobin, balance.LeastConn, balance.RandomTwo,
	balance.SourceHash, balance.Maglev, balance.First,
}

// members are n members of weight 1, in an order that is not that of names.
func members(n int) []balance.Member {
	all := make([]balance.Member, n)
	for i := range all {
		all[i] = balance.Member{Name: fmt.Sprintf("198.18.%d.%d:80", (n-i)%7, i), Weight: 1}
	}
	return all
}

// weighted are members of the given weights.
func weighted(weights ...int) []balance.Member {
	all := members(len(weights))
	for i, w := range weights {
		all[i].Weight = w
	}
	return all
}

func newPool(t testing.TB, c balance.Config) *balance.Pool {
	t.Helper()
	p, err := balance.NewPool(c)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// key is flow number n. A client has 16 of them.
func key(n int) balance.Key {
	return balance.Key{
		Client:      netip.AddrPortFrom(client(n>>4), uint16(1024+n&15)),
		Destination: netip.MustParseAddrPort("203.0.113.10:443"),
		Protocol:    6,
	}
}

// client is the address of client number n.
func client(n int) netip.Addr {
	return netip.AddrFrom4([4]byte{198, 18 + byte(n>>16&1), byte(n >> 8), byte(n)})
}

// counts are how often the members are picked for the first n clients.
func counts(t testing.TB, p *balance.Pool, n int) []int {
	t.Helper()
	s := p.All().Selector(0)
	got := make([]int, p.Len())
	for j := range n {
		i, ok := s.Pick(&balance.Key{Client: netip.AddrPortFrom(client(j), 1024)}, &balance.Set{})
		if !ok {
			t.Fatalf("client %d: none picked", j)
		}
		got[i]++
	}
	return got
}

// pickAll picks for one flow until there is none left.
func pickAll(s *balance.Selector, k balance.Key) []int {
	var tried balance.Set
	var got []int
	for {
		i, ok := s.Pick(&k, &tried)
		if !ok {
			return got
		}
		got = append(got, i)
		tried.Add(i)
	}
}
