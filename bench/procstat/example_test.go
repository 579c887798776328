package procstat_test

import (
	"fmt"
	"os"

	"github.com/tproxyd/tproxyd/bench/procstat"
)

func ExampleFS_CPU() {
	pids, err := procstat.Proc.Tree(os.Getpid())
	if err != nil {
		fmt.Println(err)
		return
	}
	spent, err := procstat.Proc.CPU(pids)
	fmt.Println(spent > 0, err)
	// Output: true <nil>
}
