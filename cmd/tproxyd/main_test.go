package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"testing"

	"github.com/tproxyd/tproxyd/internal/netnstest"
)

// Tests run the daemon as a process of its own. It is this test binary, which
// takes its arguments for a command line of tproxyd if it finds daemonEnv; the
// value says in which way its life is made hard.
const daemonEnv = "TPROXYD_TEST_DAEMON"

func TestMain(m *testing.M) {
	text, found := os.LookupEnv(daemonEnv)
	if !found {
		netnstest.Main(m)
	}
	var c confinement
	err := json.Unmarshal([]byte(text), &c)
	if err == nil && c != (confinement{}) {
		err = c.enter() // starts the program anew unless it fails
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "confine the daemon:", err)
		os.Exit(100)
	}
	os.Exit(execute(context.Background(), env{stdout: os.Stdout, stderr: os.Stderr}, os.Args[1:]))
}
