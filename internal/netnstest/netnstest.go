package netnstest

import (
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/tproxyd/tproxyd/internal/lab"
)

// New makes a lab that is taken down at the end of the test.
func New(t testing.TB) *lab.Lab {
	t.Helper()
	return NewConfig(t, lab.Config{})
}

// NewConfig is [New] with options.
func NewConfig(t testing.TB, cfg lab.Config) *lab.Lab {
	t.Helper()
	l, err := lab.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

// Need finds a tool that the test runs. Where it is missing the test is
// skipped, or fails when the environment says CI=true.
func Need(t testing.TB, tool, debianPackage string) (path string) {
	t.Helper()
	path, err := exec.LookPath(tool)
	if err == nil {
		return path
	}
	const format = "this test needs %s: apt-get install %s (%v)"
	if os.Getenv("CI") == "true" {
		t.Fatalf(format, tool, debianPackage, err)
	}
	t.Skipf(format, tool, debianPackage, err)
	return ""
}

// NeedRoot is Need for root's rights outside every user namespace.
func NeedRoot(t testing.TB) {
	t.Helper()
	uids, err := os.ReadFile("/proc/self/uid_map")
	if err != nil {
		t.Fatal(err)
	}
	// The first namespace maps all ids to themselves: user_namespaces(7).
	if fields := strings.Fields(string(uids)); len(fields) == 3 && fields[2] == "4294967295" {
		return
	}
	const message = "this test needs root: run it with sudo"
	if os.Getenv("CI") == "true" {
		t.Fatal(message)
	}
	t.Skip(message)
}

// Eventually waits until cond is true and fails the test with msg when that
// takes longer than limit.
func Eventually(t testing.TB, limit time.Duration, cond func() bool, msg string) {
	t.Helper()
	deadline := time.Now().Add(limit)
	for !cond() {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", limit, msg)
		}
		time.Sleep(5 * time.Millisecond)
	}
}
