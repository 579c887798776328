package lab_test

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tproxyd/tproxyd/internal/lab"
	"github.com/tproxyd/tproxyd/internal/netnstest"
)

// helperEnv makes the test binary a program that goes into a sandbox by
// itself and does there what the variable says.
const helperEnv = "LAB_TEST_HELPER"

func TestMain(m *testing.M) {
	if what := os.Getenv(helperEnv); what != "" {
		os.Exit(helper(what))
	}
	netnstest.Main(m)
}

func helper(what string) int {
	if !lab.InSandbox() {
		r, w, err := os.Pipe()
		if err != nil {
			return 99
		}
		_, _ = io.WriteString(w, "passed down")
		_ = w.Close()
		code, err := lab.Reexec(context.Background(), r)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
		return code
	}
	switch what {
	case "exit7":
		return 7
	case "kill":
		_ = unix.Kill(os.Getpid(), unix.SIGKILL)
	case "extra":
		b, err := io.ReadAll(os.NewFile(3, "extra"))
		fmt.Fprint(os.Stdout, string(b), err)
		return 0
	case "signal":
		signals := make(chan os.Signal, 1)
		signal.Notify(signals, unix.SIGHUP)
		fmt.Fprintln(os.Stdout, "ready", os.Getpid())
		<-signals
		fmt.Fprintln(os.Stdout, "hangup")
		return 3
	}
	return 98
}
