package netnstest_test

import (
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tproxyd/tproxyd/internal/lab"
	"github.com/tproxyd/tproxyd/internal/netnstest"
)

// leakEnv makes TestLeak leave something behind, in a run of its own.
const leakEnv = "NETNSTEST_LEAK"

func TestMain(m *testing.M) { netnstest.Main(m) }

func TestLeak(t *testing.T) {
	switch os.Getenv(leakEnv) {
	case "":
		t.Log("nothing to leak")
	case "descriptor":
		// Not an os.File: the garbage collector closes those in time.
		if _, err := unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0); err != nil {
			t.Fatal(err)
		}
	case "goroutine":
		go func() { select {} }()
	case "failure":
		t.Error("as asked for")
	}
}

// TestMainFails runs the test binary from the outside and looks at what Main
// makes of tests that leave something behind.
func TestMainFails(t *testing.T) {
	tests := map[string]struct {
		code int
		want string
	}{
		"nothing":    {0, "PASS"},
		"descriptor": {1, "descriptors left after the tests: "},
		"goroutine":  {1, "goroutines left after the tests: "},
		"failure":    {1, "as asked for"},
	}
	for leak, tt := range tests {
		t.Run(leak, func(t *testing.T) {
			cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^TestLeak$")
			for _, kv := range os.Environ() {
				if !strings.HasPrefix(kv, "TPROXYD_LAB_") {
					cmd.Env = append(cmd.Env, kv)
				}
			}
			cmd.Env = append(cmd.Env, leakEnv+"="+leak)
			out, _ := cmd.CombinedOutput()
			if got := cmd.ProcessState.ExitCode(); got != tt.code || !strings.Contains(string(out), tt.want) {
				t.Errorf("exit code %d, want %d with %q:\n%s", got, tt.code, tt.want, out)
			}
		})
	}
}

// fakeTB records how a test was ended. The real functions do not return.
type fakeTB struct {
	testing.TB
	ended string
}

func (f *fakeTB) Helper()               {}
func (f *fakeTB) Skipf(string, ...any)  { f.ended = "skip" }
func (f *fakeTB) Fatalf(string, ...any) { f.ended = "fatal"; panic(f) }

func need(f *fakeTB, tool string) {
	defer func() { _ = recover() }()
	netnstest.Need(f, tool, "package")
}

func TestNeed(t *testing.T) {
	for _, tt := range []struct{ ci, tool, want string }{
		{"", "sh", ""},
		{"true", "sh", ""},
		{"", "no-such-tool", "skip"},
		{"true", "no-such-tool", "fatal"},
	} {
		t.Setenv("CI", tt.ci)
		f := &fakeTB{TB: t}
		need(f, tt.tool)
		if f.ended != tt.want {
			t.Errorf("CI=%q: Need(%s) ended with %q, want %q", tt.ci, tt.tool, f.ended, tt.want)
		}
	}
}

func TestEventually(t *testing.T) {
	calls := 0
	netnstest.Eventually(t, time.Minute, func() bool { calls++; return calls == 3 }, "third call")
	f := &fakeTB{TB: t}
	func() {
		defer func() { _ = recover() }()
		netnstest.Eventually(f, time.Millisecond, func() bool { return false }, "never")
	}()
	if f.ended != "fatal" {
		t.Error("Eventually did not fail")
	}
}

func TestNew(t *testing.T) {
	l := netnstest.New(t)
	ln, err := l.Proxy.Listen("tcp", net.JoinHostPort(lab.ProxyClientIP6, "80"))
	if err != nil {
		t.Fatal(err)
	}
	if err := ln.Close(); err != nil {
		t.Error(err)
	}
}
