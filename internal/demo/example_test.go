package demo_test

import (
	"context"
	"fmt"
	"os"

	"github.com/tproxyd/tproxyd/internal/demo"
)

// The program's demo subcommand is this. In the sandbox the same lines run
// once more.
func ExampleRun() {
	ok, err := demo.Run(context.Background(), demo.Config{Hold: true})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	if !ok {
		os.Exit(1)
	}
}
