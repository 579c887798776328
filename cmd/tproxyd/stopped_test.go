package main

import (
	"bytes"
	"fmt"
	"os"
	"testing"

	"github.com/tproxyd/tproxyd/internal/netnstest"
)

// waitState waits until the process is in a state of proc_pid_stat(5).
func waitState(t *testing.T, d *process, state byte) {
	t.Helper()
	netnstest.Eventually(t, patience, func() bool {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", d.cmd.Process.Pid))
		if err != nil {
			t.Fatal(err)
		}
		return text[bytes.LastIndexByte(text, ')')+2] == state
	}, "the process is in state "+string(state))
}
