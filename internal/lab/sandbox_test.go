package lab_test

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tproxyd/tproxyd/internal/lab"
	"github.com/tproxyd/tproxyd/internal/netnstest"
)

// outside prepares a helper that does not know of the sandbox around the test.
func outside(t *testing.T, what string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe")
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, "TPROXYD_LAB_") {
			cmd.Env = append(cmd.Env, kv)
		}
	}
	cmd.Env = append(cmd.Env, helperEnv+"="+what)
	return cmd
}

func TestInSandbox(t *testing.T) {
	if !lab.InSandbox() {
		t.Error("InSandbox() = false in a test run by netnstest.Main")
	}
	t.Setenv("TPROXYD_LAB_HOST_NETNS", "")
	if lab.InSandbox() {
		t.Error("InSandbox() = true without the marker")
	}
	if _, err := lab.New(lab.Config{}); err == nil {
		t.Error("New outside a sandbox made a lab")
	}
	var st unix.Stat_t
	if err := unix.Stat("/proc/self/ns/net", &st); err != nil {
		t.Fatal(err)
	}
	t.Setenv("TPROXYD_LAB_HOST_NETNS", strconv.FormatUint(st.Ino, 10))
	if lab.InSandbox() {
		t.Error("InSandbox() = true in the marked host namespace itself")
	}
}

func TestReexecExitCode(t *testing.T) {
	for what, want := range map[string]int{"exit7": 7, "kill": 128 + 9} {
		cmd := outside(t, what)
		out, _ := cmd.CombinedOutput()
		if got := cmd.ProcessState.ExitCode(); got != want {
			t.Errorf("%s: exit code %d, want %d: %s", what, got, want, out)
		}
	}
}

func TestReexecExtraFile(t *testing.T) {
	out, err := outside(t, "extra").CombinedOutput()
	if got, want := string(out), "passed down<nil>"; err != nil || got != want {
		t.Errorf("got %q, %v, want %q", got, err, want)
	}
}

func startSignalHelper(t *testing.T) (cmd *exec.Cmd, out *bufio.Reader, inner int) {
	t.Helper()
	cmd = outside(t, "signal")
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	out = bufio.NewReader(pipe)
	line, err := out.ReadString('\n')
	if err == nil {
		_, err = fmt.Sscanf(line, "ready %d", &inner)
	}
	if err != nil {
		t.Fatalf("read %q: %v", line, err)
	}
	return cmd, out, inner
}

func TestReexecPassesSignals(t *testing.T) {
	cmd, out, _ := startSignalHelper(t)
	if err := cmd.Process.Signal(unix.SIGHUP); err != nil {
		t.Fatal(err)
	}
	rest, _ := io.ReadAll(out)
	_ = cmd.Wait()
	if got := cmd.ProcessState.ExitCode(); got != 3 || string(rest) != "hangup\n" {
		t.Errorf("exit code %d and output %q, want 3 and hangup", got, rest)
	}
}

func TestReexecDiesWithParent(t *testing.T) {
	cmd, _, inner := startSignalHelper(t)
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	netnstest.Eventually(t, 5*time.Second, func() bool {
		return !running(inner)
	}, fmt.Sprintf("process %d in the sandbox dies with its parent", inner))
}

// running is false for a zombie too: nobody may be there to collect it.
func running(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, state, _ := strings.Cut(string(stat), ") ")
	return !strings.HasPrefix(state, "Z") && !strings.HasPrefix(state, "X")
}

// TestReexecForbidden forbids user namespaces for real, in a user namespace of
// its own, to a root that has lost the capability to do without.
func TestReexecForbidden(t *testing.T) {
	netnstest.Need(t, "setpriv", "util-linux")
	exe, err := os.Open("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = exe.Close() }()
	cmd := outside(t, "exit7")
	cmd.Path, cmd.Args = "/bin/sh", []string{
		"sh", "-c", "echo 0 >/proc/sys/user/max_user_namespaces && " +
			"exec setpriv --bounding-set=-sys_admin /proc/self/fd/3",
	}
	cmd.ExtraFiles = []*os.File{exe}
	root := []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWUSER, UidMappings: root, GidMappings: root,
	}
	out, _ := cmd.CombinedOutput()
	want := "/proc/sys/user/max_user_namespaces is 0: run as root, or allow it with: sysctl"
	if cmd.ProcessState.ExitCode() != 1 || !strings.Contains(string(out), want) {
		t.Errorf("exit code %d, output %q, want 1 and %q", cmd.ProcessState.ExitCode(), out, want)
	}
}
