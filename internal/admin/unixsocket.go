package admin

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// UnixListener listens on a unix socket whose file it owns.
type UnixListener struct {
	*net.UnixListener
	path string
	file os.FileInfo
}

// ListenUnix opens a socket at path that whom mode grants writing may connect to,
// and never anybody else. The file of a process that has died is replaced, one
// that somebody listens on is not. Two processes that start at the same moment
// are not kept apart.
func ListenUnix(path string, mode fs.FileMode) (*UnixListener, error) {
	l, err := listenUnix(path, mode)
	if err != nil {
		return nil, fmt.Errorf("listen on unix socket %s: %w", path, err)
	}
	return l, nil
}

func listenUnix(path string, mode fs.FileMode) (*UnixListener, error) {
	if room := len(unix.RawSockaddrUnix{}.Path) - 1; len(path) > room {
		return nil, fmt.Errorf("the path has %d bytes, and may have %d", len(path), room)
	}
	if err := removeStale(path); err != nil {
		return nil, err
	}
	// The file gets the permissions that the socket has when it is bound, less
	// those in the umask (unix_bind_bsd in net/unix/af_unix.c): there is no moment
	// at which it has more than mode.
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var chmodErr error
		err := c.Control(func(fd uintptr) { chmodErr = unix.Fchmod(int(fd), uint32(mode.Perm())) })
		return errors.Join(err, os.NewSyscallError("fchmod", chmodErr))
	}}
	listener, err := lc.Listen(context.Background(), "unix", path)
	if err != nil {
		return nil, err
	}
	l := &UnixListener{UnixListener: listener.(*net.UnixListener), path: path}
	l.SetUnlinkOnClose(false) // Close does, with more care
	l.file, err = os.Lstat(path)
	if err == nil {
		err = l.Chmod(mode) // the umask may have taken something away
	}
	if err != nil {
		_ = l.Close()
		return nil, err
	}
	return l, nil
}

// Chmod changes who may connect from now on.
func (l *UnixListener) Chmod(mode fs.FileMode) error { return os.Chmod(l.path, mode.Perm()) }

// Close removes the file, unless another has taken its place, and closes l.
func (l *UnixListener) Close() error {
	if now, err := os.Lstat(l.path); err == nil && l.file != nil && os.SameFile(now, l.file) {
		_ = os.Remove(l.path) // the next one to listen here would do it
	}
	return l.UnixListener.Close()
}

// removeStale makes way at path, if what is in the way is a socket that nobody
// listens on.
func removeStale(path string) error {
	switch info, err := os.Lstat(path); {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.Mode().Type() != fs.ModeSocket:
		return errors.New("there is a file that is not a socket; remove it, or choose another path")
	}
	conn, err := net.DialTimeout("unix", path, time.Second)
	switch {
	case err == nil:
		defer conn.Close()
		return fmt.Errorf("%w: %s listens there", unix.EADDRINUSE, listenerOf(conn.(*net.UnixConn)))
	case errors.Is(err, unix.ECONNREFUSED):
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove the socket of a process that has ended: %w", err)
		}
		return nil
	case errors.Is(err, fs.ErrNotExist):
		return nil
	}
	return fmt.Errorf("there is a socket already, and whether anybody listens there is not to be found out: %w", err)
}

// listenerOf names the process at the other end.
func listenerOf(conn *net.UnixConn) string {
	cred, err := peerOf(conn)
	switch {
	case err != nil:
		return "another process"
	case int(cred.Pid) == os.Getpid():
		return "this process itself"
	}
	who := fmt.Sprintf("pid %d", cred.Pid)
	if name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", cred.Pid)); err == nil {
		who = strings.TrimSpace(string(name)) + ", " + who
	}
	return fmt.Sprintf("%s, uid %d,", who, cred.Uid)
}

// peerOf returns who made the other end of conn, see SO_PEERCRED in unix(7).
func peerOf(conn *net.UnixConn) (*unix.Ucred, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	var cred *unix.Ucred
	var credErr error
	if err := raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return nil, err
	}
	return cred, os.NewSyscallError("getsockopt(SO_PEERCRED)", credErr)
}
