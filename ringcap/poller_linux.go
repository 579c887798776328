package ringcap

import (
	"context"
	"errors"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// poller waits for a ring by way of the runtime's own poller, so that a waiting
// reader costs no thread.
//
// Between the two stands an epoll descriptor of ours, edge-triggered as the
// runtime's. Level-triggered waiting would spin while the last block is
// retained: the kernel calls a ring readable when the block before its current
// one is not its own. And the runtime takes a descriptor on which EPOLLERR came
// alone, which is how a link goes down, for one that cannot be polled.
type poller struct {
	file   *os.File
	raw    syscall.RawConn
	events [2]unix.EpollEvent
}

func newPoller(fd int) (*poller, error) {
	ep, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	event := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLERR | unix.EPOLLET}
	if err := errors.Join(
		os.NewSyscallError("epoll_ctl(EPOLL_CTL_ADD)", unix.EpollCtl(ep, unix.EPOLL_CTL_ADD, fd, &event)),
		os.NewSyscallError("fcntl(O_NONBLOCK)", unix.SetNonblock(ep, true)),
	); err != nil {
		_ = unix.Close(ep)
		return nil, err
	}
	p := &poller{file: os.NewFile(uintptr(ep), "ring")}
	if p.raw, err = p.file.SyscallConn(); err == nil {
		err = p.file.SetReadDeadline(time.Time{}) // fails if the runtime cannot poll it
	}
	if err != nil {
		p.close()
		return nil, err
	}
	return p, nil
}

func (p *poller) close() { _ = p.file.Close() } // nothing was written

// wait returns when done says so, which it asks after every event, or with the
// error of ctx or os.ErrDeadlineExceeded.
//
// An event that comes between done's last answer and the sleep is not lost: it
// is an edge that the runtime keeps.
func (p *poller) wait(ctx context.Context, deadline time.Time, done func() bool) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := p.file.SetReadDeadline(deadline); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = p.file.SetReadDeadline(time.Unix(1, 0)) })
	err := p.raw.Read(func(fd uintptr) bool {
		// Take the edges first: what comes after is a new one.
		_, _ = unix.EpollWait(int(fd), p.events[:], 0)
		return done()
	})
	stop()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}
