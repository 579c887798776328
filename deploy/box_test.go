package deploy_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tproxyd/tproxyd/internal/lab"
	"github.com/tproxyd/tproxyd/internal/netnstest"
)

// boxPackages is what a box has beyond Debian's smallest set.
const boxPackages = "systemd,systemd-sysv,dbus,iproute2,procps"

// box is a booted systemd whose network is the lab's proxy host. Its files are
// an overlay in memory on a root directory that all boxes of a suite share.
type box struct {
	l      *lab.Lab
	pid1   int
	cursor string // into the journal: where the present step begins
}

// bootBox boots a Debian suite. It needs root, not just a user namespace.
func bootBox(t *testing.T, l *lab.Lab, suite string) *box {
	t.Helper()
	nspawn := netnstest.Need(t, "systemd-nspawn", "systemd-container")
	unshare := netnstest.Need(t, "unshare", "util-linux")
	netnstest.Need(t, "nsenter", "util-linux")
	netnstest.NeedRoot(t)
	root := boxRoot(t, suite)

	// In a PID namespace of its own, so that nothing of the box outlives a test
	// that is killed: an nspawn that is killed leaves its PID 1 behind.
	cmd := l.Proxy.Command(context.Background(), unshare, "--pid", "--fork", "--mount-proc", "--kill-child",
		nspawn, "--quiet", "--directory="+root, "--volatile=overlay", "--machine=tproxyd-box",
		"--register=no", "--keep-unit", "--boot", "--console=pipe",
		"--network-namespace-path=/proc/self/ns/net", // nspawn's own
		// What nspawn leaves to a box with a network of its own, which this is
		// not in nspawn's eyes.
		"--capability=CAP_NET_ADMIN,CAP_NET_RAW,CAP_NET_BIND_SERVICE")
	cmd.Env = append(os.Environ(), "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1")
	var console bytes.Buffer
	cmd.Stdout, cmd.Stderr = &console, &console
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	b := &box{l: l}
	t.Cleanup(func() {
		if b.pid1 != 0 { // halt: systemd(1), "Signals"
			_ = unix.Kill(b.pid1, unix.Signal(34+4))
		} else {
			_ = cmd.Process.Kill()
		}
		if err := cmd.Wait(); err != nil {
			t.Errorf("systemd-nspawn: %v\n%s", err, &console)
		}
		// nspawn removes it only where /run is in memory.
		_ = os.Remove("/run/systemd/nspawn/propagate/tproxyd-box")
	})
	netnstest.Eventually(t, patience, func() bool {
		b.pid1 = descendant(cmd.Process.Pid, "systemd")
		return b.pid1 != 0
	}, "systemd-nspawn starts systemd")
	netnstest.Eventually(t, patience, func() bool {
		state, _ := b.try(t, "systemctl", "is-system-running")
		return state == "running"
	}, "the box is up")
	return b
}

// descendant finds the process called comm below pid, or 0.
func descendant(pid int, comm string) int {
	name, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	if strings.TrimSpace(string(name)) == comm {
		return pid
	}
	// With --mount-proc the kernel still shows them by our numbers here.
	children, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, file := range children {
		list, _ := os.ReadFile(file)
		for field := range strings.FieldsSeq(string(list)) {
			child, err := strconv.Atoi(field)
			if err != nil {
				continue
			}
			if found := descendant(child, comm); found != 0 {
				return found
			}
		}
	}
	return 0
}

// boxRoot returns the root directory of a suite. The first time it is built,
// from the network of the host, and then kept in the user's cache.
func boxRoot(t *testing.T, suite string) string {
	t.Helper()
	mmdebstrap := netnstest.Need(t, "mmdebstrap", "mmdebstrap")
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	version := sha256.Sum256([]byte(boxPackages))
	root := filepath.Join(cache, "tproxyd", fmt.Sprintf("box-%s-%x", suite, version[:4]))
	if err := os.MkdirAll(filepath.Dir(root), 0o755); err != nil {
		t.Fatal(err)
	}
	lock, err := os.Create(root + ".lock")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = lock.Close() }()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(os.NewSyscallError("flock", err))
	}
	if _, err := os.Stat(root); err == nil {
		return root
	}
	// What a killed run left is built over; the name is taken only when done.
	unfinished := root + ".unfinished"
	if err := os.RemoveAll(unfinished); err != nil {
		t.Fatal(err)
	}
	// The test is in a sandbox without a network; its parent is not.
	outside := fmt.Sprintf("--net=/proc/%d/ns/net", os.Getppid())
	out, err := exec.CommandContext(t.Context(), "nsenter", outside, mmdebstrap,
		"--quiet", "--variant=minbase", "--include="+boxPackages, suite, unfinished).CombinedOutput()
	if err != nil {
		t.Fatalf("mmdebstrap %s: %v\n%s", suite, err, out)
	}
	if err := os.Rename(unfinished, root); err != nil {
		t.Fatal(err)
	}
	return root
}

// try runs a command in the box and returns what it printed.
func (b *box) try(t *testing.T, args ...string) (string, error) {
	t.Helper()
	all := append([]string{
		"--target", strconv.Itoa(b.pid1),
		"--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--root", "--wd",
	}, args...)
	out, err := exec.CommandContext(t.Context(), "nsenter", all...).CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

// run is try for what has to succeed.
func (b *box) run(t *testing.T, args ...string) string {
	t.Helper()
	out, err := b.try(t, args...)
	if err != nil {
		t.Fatalf("%s: %v\n%s\njournal:\n%s", strings.Join(args, " "), err, out, b.journal(t))
	}
	return out
}

// write puts a file into the box.
func (b *box) write(t *testing.T, path, text string, mode os.FileMode) {
	t.Helper()
	file := fmt.Sprintf("/proc/%d/root%s", b.pid1, path)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
}

// property returns a property of the unit.
func (b *box) property(t *testing.T, name string) string {
	t.Helper()
	return b.run(t, "systemctl", "show", "--value", "--property="+name, "tproxyd")
}

// journal returns what the unit has said in the present step.
func (b *box) journal(t *testing.T) string {
	t.Helper()
	if out, err := b.try(t, "journalctl", "--sync"); err != nil {
		t.Errorf("journalctl --sync: %v\n%s", err, out)
	}
	out, err := b.try(t, "journalctl", "--no-pager", "--output=cat", "--unit=tproxyd", "--after-cursor="+b.cursor)
	if err != nil {
		t.Errorf("journalctl: %v\n%s", err, out)
	}
	return out
}
