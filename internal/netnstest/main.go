package netnstest

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"go.uber.org/goleak"

	"github.com/tproxyd/tproxyd/internal/lab"
)

// leakTimeout is how long descriptors may take to go after the last test.
const leakTimeout = 5 * time.Second

// Main runs the tests of m in a sandbox and ends the process with their
// code. Call it from TestMain, and nothing after it. The options are for
// goleak: goroutines to ignore.
func Main(m *testing.M, ignore ...goleak.Option) {
	os.Exit(run(m, ignore))
}

func run(m *testing.M, ignore []goleak.Option) int {
	if !lab.InSandbox() {
		// The same flags, so everything that go test asked for, such as
		// profiles, is written in there.
		code, err := lab.Reexec(context.Background())
		if err != nil {
			fmt.Fprintln(os.Stderr, "netnstest:", err)
		}
		return code
	}
	flag.Parse()
	// Tools such as nft are not on the path of an ordinary user.
	path := os.Getenv("PATH") + ":/usr/local/sbin:/usr/sbin:/sbin"
	if err := os.Setenv("PATH", path); err != nil {
		fmt.Fprintln(os.Stderr, "netnstest:", err)
		return 1
	}
	// A new namespace has its loopback interface down, and examples have no lab.
	if err := netlink.LinkSetUp(&netlink.Device{LinkAttrs: netlink.LinkAttrs{Name: "lo", Index: 1}}); err != nil {
		fmt.Fprintln(os.Stderr, "netnstest: set lo up:", err)
		return 1
	}
	before, err := startDescriptors()
	if err != nil {
		fmt.Fprintln(os.Stderr, "netnstest:", err)
		return 1
	}
	code := m.Run()
	if code != 0 || fuzzing() {
		return code
	}
	if err := goleak.Find(ignore...); err != nil {
		fmt.Fprintln(os.Stderr, "netnstest: goroutines left after the tests:", err)
		code = 1
	}
	if left := waitDescriptors(before); len(left) > 0 {
		fmt.Fprintln(os.Stderr, "netnstest: descriptors left after the tests:", strings.Join(left, ", "))
		code = 1
	}
	return code
}

// fuzzing says whether this process is a fuzzing coordinator or its worker,
// which are stopped in the middle of their work.
func fuzzing() bool {
	return flagValue("test.fuzz") != "" || flagValue("test.fuzzworker") == "true"
}

func flagValue(name string) string {
	if f := flag.Lookup(name); f != nil {
		return f.Value.String()
	}
	return ""
}

// startDescriptors opens what the runtime opens once and keeps, its poller,
// and returns the descriptors there are.
func startDescriptors() (map[string]string, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	_, _ = r.Close(), w.Close()
	return descriptors()
}

// descriptors returns what every open descriptor is.
func descriptors() (map[string]string, error) {
	const dir = "/proc/self/fd"
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	open := make(map[string]string, len(entries))
	for _, e := range entries {
		// The directory's own descriptor is closed by now.
		if target, err := os.Readlink(filepath.Join(dir, e.Name())); err == nil {
			open[e.Name()] = target
		}
	}
	return open, nil
}

// waitDescriptors returns what is open beyond before, after giving it time to
// be closed.
func waitDescriptors(before map[string]string) []string {
	deadline := time.Now().Add(leakTimeout)
	for {
		left := newDescriptors(before)
		if len(left) == 0 || time.Now().After(deadline) {
			return left
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func newDescriptors(before map[string]string) []string {
	now, err := descriptors()
	if err != nil {
		return []string{err.Error()}
	}
	var left []string
	for fd, target := range now {
		if before[fd] != target && !profile(target) {
			left = append(left, fd+" "+target)
		}
	}
	slices.Sort(left)
	return left
}

// profile says whether a file is one that the testing package keeps open.
func profile(target string) bool {
	for _, name := range []string{"test.cpuprofile", "test.trace"} {
		if v := flagValue(name); v != "" && filepath.Base(v) == filepath.Base(target) {
			return true
		}
	}
	return false
}
