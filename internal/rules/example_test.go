package rules_test

import (
	"fmt"
	"net/netip"

	"github.com/tproxyd/tproxyd/internal/lab"
	"github.com/tproxyd/tproxyd/internal/rules"
)

func Example() {
	l, err := lab.New(lab.Config{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = l.Close() }()
	plan := rules.Plan{
		Intercepts: []rules.Intercept{{
			Name:         "web",
			DestPrefixes: []netip.Prefix{netip.MustParsePrefix("198.18.3.0/24")},
			DestPorts:    []rules.Ports{rules.Port(80), rules.Port(443)},
			ToPort:       15001,
			OnFailure:    rules.Block,
		}},
	}
	fmt.Println(rules.Apply(plan), rules.Remove(plan))
	// Output: <nil> <nil>
}
