package admin_test

import (
	"cmp"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/tproxyd/tproxyd/internal/admin"
)

// Several collectors, merged, give what sorting everything gives.
func TestCollector(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	flows := make([]admin.Flow, 5000)
	for i := range flows {
		flows[i] = admin.Flow{
			ID: admin.FlowID(i), AgeMS: random.Int64N(50), IdleMS: random.Int64N(9), BytesIn: random.Uint64N(99),
			Client: netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 18, byte(random.IntN(4)), 1}), 1),
		}
	}
	for _, query := range []string{"", "sort=bytes&order=asc", "sort=idle&limit=7", "sort=id&limit=10000", "client=198.18.2.0/24&limit=1"} {
		q, err := admin.ParseFlowQuery(query)
		if err != nil {
			t.Fatal(err)
		}
		workers := []*admin.Collector{admin.NewCollector(q), admin.NewCollector(q), admin.NewCollector(q)}
		var want []admin.Flow
		for i := range flows {
			workers[random.IntN(3)].Add(&flows[i])
			if q.Match(&flows[i]) {
				want = append(want, flows[i])
			}
		}
		all := admin.NewCollector(q)
		for _, w := range workers {
			all.Merge(w)
		}
		got := all.List()
		if got.Matched != len(want) || got.Total != len(flows) {
			t.Errorf("%q: matched %d of %d, want %d of %d", query, got.Matched, got.Total, len(want), len(flows))
		}
		slices.SortFunc(want, func(a, b admin.Flow) int { return orderOf(query, a, b) })
		want = want[:min(len(want), q.Limit)]
		if diff := gocmp.Diff(want, []admin.Flow(got.Flows), cmpopts.EquateComparable(netip.AddrPort{})); diff != "" {
			t.Errorf("%q (-want +got):\n%s", query, diff)
		}
	}
}

// orderOf is the order of the queries of TestCollector, once more.
func orderOf(query string, a, b admin.Flow) int {
	switch query {
	case "sort=bytes&order=asc":
		return cmp.Or(cmp.Compare(a.BytesIn, b.BytesIn), cmp.Compare(a.ID, b.ID))
	case "sort=idle&limit=7":
		return cmp.Or(cmp.Compare(b.IdleMS, a.IdleMS), cmp.Compare(b.ID, a.ID))
	case "sort=id&limit=10000":
		return cmp.Compare(a.ID, b.ID)
	}
	return cmp.Or(cmp.Compare(b.AgeMS, a.AgeMS), cmp.Compare(b.ID, a.ID))
}

// A flow that is not among the first costs no memory.
func TestCollectorAllocates(t *testing.T) {
	q, err := admin.ParseFlowQuery("limit=10")
	if err != nil {
		t.Fatal(err)
	}
	c := admin.NewCollector(q)
	for i := range 10 {
		c.Add(&admin.Flow{ID: admin.FlowID(i)})
	}
	f := admin.Flow{}
	if n := testing.AllocsPerRun(1000, func() { f.ID++; f.AgeMS++; c.Add(&f) }); n != 0 {
		t.Errorf("%v allocations for each flow", n)
	}
}

func FuzzParseFlowQuery(f *testing.F) {
	for _, s := range []string{"", "client=198.18.0.0/15&limit=3", "client=2001:db8::1&sort=id&order=desc", "state=active&protocol=udp", "a=%zz", "limit=-1", "client=::ffff:1.2.3.4/96", "client=fe80::1%25e"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		q, err := admin.ParseFlowQuery(s)
		if err != nil {
			return
		}
		if q.Limit < 1 || q.Limit > admin.MaxFlowLimit || q.Client.IsValid() && q.Client != q.Client.Masked() {
			t.Errorf("%q: %+v", s, q)
		}
		q.Match(&admin.Flow{Client: netip.MustParseAddrPort("198.18.1.1:1")})
	})
}

func FuzzParseBackendChange(f *testing.F) {
	for _, s := range []string{`{"weight": 10, "state": "drain"}`, `{"weight": null}`, `{"weight": "default"}`, `{`, `{"a":{"b":[1]}}`, `{"weight":1e2}`, `{} {}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, s []byte) {
		c, err := admin.ParseBackendChange(s)
		if err == nil && (c == (admin.BackendChange{}) || c.Weight != nil && (*c.Weight < admin.DefaultWeight || *c.Weight > admin.MaxWeight)) {
			t.Errorf("%q: %+v", s, c)
		}
	})
}
