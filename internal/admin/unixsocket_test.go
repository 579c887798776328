package admin_test

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tproxyd/tproxyd/internal/admin"
)

// socketPath is a path in a directory that everybody can enter.
func socketPath(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, d := range []string{dir, filepath.Dir(dir)} {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return filepath.Join(dir, "s")
}

func TestUnixServer(t *testing.T) {
	path := socketPath(t)
	l, err := admin.ListenUnix(path, 0o640)
	if err != nil {
		t.Fatal(err)
	}
	control := &fakeControl{}
	serve(t, admin.Config{Listener: l, Control: control}) // Write is not said
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprint(c, "DELETE /api/v1/flows/c0ffee01 HTTP/1.1\r\nHost: localhost\r\n\r\n")
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := resp.Body.Close(); err != nil || resp.StatusCode != 204 || control.cut != 0xc0ffee01 {
		t.Errorf("%s, %v, cut %x", resp.Status, err, control.cut)
	}
}

// connectAs connects to path as another user, on a thread that ends with it.
func connectAs(uid int, path string) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked
		// Those of package syscall would change all threads.
		id := uintptr(uid)
		_, _, groups := unix.RawSyscall(unix.SYS_SETGROUPS, 0, 0, 0)
		_, _, gid := unix.RawSyscall(unix.SYS_SETRESGID, id, id, id)
		_, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, id, id, id)
		if groups != 0 || gid != 0 || errno != 0 {
			done <- fmt.Errorf("become %d: %w, %w, %w", uid, groups, gid, errno)
			return
		}
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err == nil {
			err = unix.Connect(fd, &unix.SockaddrUnix{Name: path})
			_ = unix.Close(fd)
		}
		done <- err
	}()
	return <-done
}

func TestUnixMode(t *testing.T) {
	path := socketPath(t)
	l, err := admin.ListenUnix(path, 0o660)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	want := func(mode os.FileMode, refused error) {
		t.Helper()
		info, err := os.Lstat(path)
		if err != nil || info.Mode() != os.ModeSocket|mode {
			t.Errorf("mode %v, %v, want %v", info.Mode(), err, mode)
		}
		if os.Getuid() != 0 {
			return // nobody else to be
		}
		if err := connectAs(65534, path); !errors.Is(err, refused) {
			t.Errorf("mode %v: connect as nobody: %v, want %v", mode, err, refused)
		}
	}
	want(0o660, unix.EACCES)
	if err := l.Chmod(0o666); err != nil {
		t.Fatal(err)
	}
	want(0o666, nil)
}

func TestUnixInTheWay(t *testing.T) {
	path := socketPath(t)
	first, err := admin.ListenUnix(path, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := admin.ListenUnix(path, 0o600); !errors.Is(err, unix.EADDRINUSE) || !strings.Contains(err.Error(), "this process itself listens there") {
		t.Errorf("live: %v", err)
	}
	// The process dies: the descriptor closes and the file stays.
	if err := first.UnixListener.Close(); err != nil {
		t.Fatal(err)
	}
	second, err := admin.ListenUnix(path, 0o600)
	if err != nil {
		t.Fatalf("stale: %v", err)
	}
	// What is not its own any more, Close leaves alone.
	if err := os.Rename(path, path+".away"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := second.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Errorf("a file of another is gone: %v", err)
	}
	if _, err := admin.ListenUnix(path, 0o600); err == nil || !strings.Contains(err.Error(), "not a socket") {
		t.Errorf("file: %v", err)
	}
	if _, err := admin.ListenUnix("/"+strings.Repeat("x", 200), 0o600); err == nil || !strings.Contains(err.Error(), "201 bytes") {
		t.Errorf("long: %v", err)
	}
}

func TestUnixCloseRemoves(t *testing.T) {
	path := socketPath(t)
	l, err := admin.ListenUnix(path, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the file is still there: %v", err)
	}
}
