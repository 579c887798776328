package demo

import (
	"context"
	"fmt"
	"os"
	"testing"

	"github.com/tproxyd/tproxyd/internal/netnstest"
)

// naiveEnv makes the test binary a proxy like many, but not like ours.
const naiveEnv = "DEMO_TEST_NAIVE"

// holdEnv makes it a program that holds the demo of the daemon it names.
const holdEnv = "DEMO_TEST_HOLD"

func TestMain(m *testing.M) {
	if os.Getenv(naiveEnv) != "" {
		fmt.Fprintln(os.Stderr, naive())
		os.Exit(1)
	}
	if exe := os.Getenv(holdEnv); exe != "" {
		ok, err := Run(context.Background(), Config{Exe: exe, Hold: true, Bulk: testBulk})
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
		if !ok {
			os.Exit(1)
		}
		os.Exit(0)
	}
	netnstest.Main(m)
}
