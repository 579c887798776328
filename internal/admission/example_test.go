package admission_test

import (
	"fmt"
	"net/netip"

	"github.com/tproxyd/tproxyd/internal/admission"
)

func Example() {
	control, err := admission.New(admission.Config{
		Deny:         []netip.Prefix{netip.MustParsePrefix("198.18.66.0/24")},
		MaxPerClient: 2,
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	client := netip.MustParseAddr("198.18.1.2")
	for range 3 {
		fmt.Println(control.Admit(client, 0))
	}
	control.Done(client)
	fmt.Println(control.Admit(client, 0))
	fmt.Println(control.Admit(netip.MustParseAddr("198.18.66.1"), 0))
	// Output:
	// admitted
	// admitted
	// too-many
	// admitted
	// denied
}
