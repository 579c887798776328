package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// hostNetNSEnv marks a process inside a sandbox. Its value is the inode of the
// network namespace that the sandbox was started from, so that the marker
// alone, when it leaks into a process outside, makes nobody believe in a
// sandbox.
const hostNetNSEnv = "TPROXYD_LAB_HOST_NETNS"

// killDelay is how long a sandbox may go on after its context has ended.
const killDelay = 10 * time.Second

// ErrNoSandbox is returned by [New] to a process that is not in a sandbox.
var ErrNoSandbox = errors.New("this process is not in a sandbox of its own: start it with lab.Reexec")

// InSandbox says whether this process runs in a sandbox made by [Reexec].
func InSandbox() bool {
	host, err := strconv.ParseUint(os.Getenv(hostNetNSEnv), 10, 64)
	if err != nil {
		return false
	}
	own, err := netnsInode()
	return err == nil && own != host
}

func netnsInode() (uint64, error) {
	var st unix.Stat_t
	if err := unix.Stat("/proc/thread-self/ns/net", &st); err != nil {
		return 0, &os.PathError{Op: "stat", Path: "/proc/thread-self/ns/net", Err: err}
	}
	return st.Ino, nil
}

// Reexec runs this program once more, with the same arguments, streams and
// environment, inside a new sandbox, and waits for its end. The program finds
// extra as descriptors 3 and up, and [InSandbox] true. Signals are passed on,
// and the program dies with its parent. When ctx ends it gets SIGTERM, and
// SIGKILL ten seconds later.
//
// The code is the program's exit code, or 128 plus the signal that ended it.
// An error means that it was not started, and says how to go on.
func Reexec(ctx context.Context, extra ...*os.File) (code int, err error) {
	// The kernel sends the parent-death signal when the thread that made the
	// child ends, so this one has to stay: prctl(2), PR_SET_PDEATHSIG.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()

	inode, err := netnsInode()
	if err != nil {
		return 1, fmt.Errorf("find own network namespace: %w", err)
	}
	cmd := exec.CommandContext(ctx, "/proc/self/exe")
	cmd.Args = os.Args
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d", hostNetNSEnv, inode))
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.ExtraFiles = extra
	cmd.Cancel = func() error { return cmd.Process.Signal(unix.SIGTERM) }
	cmd.WaitDelay = killDelay
	cmd.SysProcAttr = sandboxAttr()

	// A process group of its own keeps a Ctrl-C from arriving twice: once from
	// the terminal and once from here.
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT,
		unix.SIGUSR1, unix.SIGUSR2, unix.SIGWINCH)
	defer signal.Stop(signals)

	if err := cmd.Start(); err != nil {
		return 1, fmt.Errorf("start sandbox: %w", explain(err, readSysctl))
	}
	ended := make(chan struct{})
	passed := make(chan struct{})
	go passSignals(cmd.Process, signals, ended, passed)
	err = cmd.Wait()
	close(ended)
	<-passed
	return exitCode(cmd.ProcessState, err)
}

func passSignals(p *os.Process, signals <-chan os.Signal, ended <-chan struct{}, passed chan<- struct{}) {
	defer close(passed)
	for {
		select {
		case s := <-signals:
			// The process may have ended in the meantime: nothing is lost.
			_ = p.Signal(s)
		case <-ended:
			return
		}
	}
}

func exitCode(state *os.ProcessState, err error) (int, error) {
	if state == nil {
		return 1, fmt.Errorf("wait for sandbox: %w", err)
	}
	if ws, ok := state.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		return 128 + int(ws.Signal()), nil
	}
	return state.ExitCode(), nil
}

// sandboxAttr describes the namespaces. The user namespace comes first, by
// clone; the others are unshared when its id maps are written, which also
// makes all mounts private.
func sandboxAttr() *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{
		Unshareflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS,
		Pdeathsig:    unix.SIGKILL,
		Setpgid:      true,
	}
	if !haveSysAdmin() {
		attr.Cloneflags = unix.CLONE_NEWUSER
		attr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		attr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	return attr
}

// haveSysAdmin asks for the capability, not for uid 0: root in a container
// usually lacks it and then needs a user namespace like anybody else.
func haveSysAdmin() bool {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&hdr, &data[0]); err != nil {
		return false
	}
	return data[0].Effective&(1<<unix.CAP_SYS_ADMIN) != 0
}
