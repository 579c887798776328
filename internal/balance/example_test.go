package balance_test

import (
	"fmt"
	"net/netip"

	"github.com/tproxyd/tproxyd/internal/balance"
)

func Example() {
	pool, err := balance.NewPool(balance.Config{
		Algorithm: balance.RoundRobin,
		Members: []balance.Member{
			{Name: "web-1", Weight: 2},
			{Name: "web-2", Weight: 1},
			{Name: "sorry", Weight: 1, Backup: true},
		},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	worker := pool.All().Selector(0) // one for each worker
	k := balance.Key{Client: netip.MustParseAddrPort("198.18.1.2:40000")}
	pick := func(tried *balance.Set) {
		if i, ok := worker.Pick(&k, tried); ok && pool.Acquire(i) {
			tried.Add(i)
			fmt.Println(pool.Name(i), pool.Active(i))
		}
	}
	for range 3 {
		pick(&balance.Set{})
	}

	// web-1 is down, as a health check finds; web-2 refuses this flow.
	pool.SetUp(0, false)
	var tried balance.Set
	pick(&tried)
	pick(&tried)
	// Output:
	// web-1 1
	// web-1 2
	// web-2 1
	// web-2 2
	// sorry 1
}
