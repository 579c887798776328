package healthcheck

import (
	"context"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tproxyd/tproxyd/internal/sys"
)

// A TCP check connects and resets. It makes the calls itself, as net.Dialer costs
// several times what the kernel does, and there are many such checks.

// open begins a TCP check. A connection that is not there at once is pending,
// and fd is for await; otherwise the check is over.
func (t *Target) open(f *finding) (fd int, pending bool, err error) {
	if err := t.sameFamily(); err != nil {
		return -1, false, err
	}
	fd, e := sys.TCPSocket(sys.Family(t.Addr.Addr()))
	if e != 0 {
		return -1, false, os.NewSyscallError("socket", e)
	}
	pending, err = t.begin(fd)
	if pending {
		return fd, true, nil
	}
	if err == nil {
		f.from = localName(fd)
	}
	sys.Close(fd)
	return -1, false, err
}

func localName(fd int) netip.Addr {
	var local sys.SockAddr
	if sys.LocalName(fd, &local) != 0 {
		return netip.Addr{}
	}
	return local.AddrPort().Addr()
}

// begin starts to connect fd, and says whether that is still going on.
func (t *Target) begin(fd int) (pending bool, err error) {
	if err := t.prepare(fd, false); err != nil {
		return false, err
	}
	var sa sys.SockAddr
	if t.Spoof.IsValid() {
		sa.Set(netip.AddrPortFrom(t.Spoof, 0))
		if e := sys.Bind(fd, &sa); e != 0 {
			return false, os.NewSyscallError("bind", e)
		}
	}
	if e := sys.AbortOnClose(fd); e != 0 { // see doc.go
		return false, os.NewSyscallError("setsockopt(SO_LINGER)", e)
	}
	sa.Set(t.Addr)
	switch e := sys.Connect(fd, &sa); e {
	case 0:
		return false, nil
	case unix.EINPROGRESS:
	default:
		return false, os.NewSyscallError("connect", e)
	}
	// On the host itself it is done by now.
	done, err := connected(fd)
	return !done, err
}

// connected says whether connecting has ended, and how.
func connected(fd int) (done bool, err error) {
	fds := [1]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
	if n, err := unix.Poll(fds[:], 0); n == 0 || err != nil {
		return false, nil //nolint:nilerr // EINTR: it is asked again
	}
	if e := sys.SocketError(fd); e != 0 {
		return true, os.NewSyscallError("connect", e)
	}
	return true, nil
}

// await waits for fd to connect, and closes it.
func await(ctx context.Context, fd int, f *finding) error {
	file := os.NewFile(uintptr(fd), "health check")
	defer func() { _ = file.Close() }()
	end := context.AfterFunc(ctx, func() { _ = file.SetDeadline(time.Unix(1, 0)) })
	defer end()
	raw, err := file.SyscallConn()
	if err != nil {
		return err
	}
	var result error
	err = raw.Write(func(uintptr) (done bool) {
		done, result = connected(fd)
		return done
	})
	if err != nil {
		return err
	}
	f.from = localName(fd)
	return result
}
