package eventloop

import (
	"os"
	"runtime"
	"sync"
	"time"

	"github.com/tproxyd/tproxyd/internal/sys"
	"golang.org/x/sys/unix"
)

// Tag names the owner of a descriptor. Slot and Gen are the owner's; the loop
// keeps the slot NoSlot for itself.
type Tag struct{ Slot, Gen uint32 }

// NoSlot is the slot that no owner may use.
const NoSlot = ^uint32(0)

// Handler gets what happens in the loop, on the loop's goroutine.
type Handler interface {
	// Event reports epoll events of the descriptor registered with tag.
	Event(tag Tag, events uint32)
	// Expired reports a timer that is due. It is no longer scheduled.
	Expired(t *Timer)
	// Turn ends each batch. It returns true if work is left that no event will
	// announce; the loop then does not sleep.
	Turn() bool
}

const batch = 256 // events taken from epoll at a time

// yieldEvery is how often the loop passes through the Go scheduler. A goroutine
// that has not for 10 ms makes the runtime's monitor take its processor away at
// each system call that sleeps, and wake up every 20 us to do so: a tenth of
// the CPU time of a loop that sleeps often.
const yieldEvery = 5 * time.Millisecond

// Loop is one thread's event loop.
type Loop struct {
	epfd, wakefd int
	now          int64
	yielded      int64 // when the loop last passed through the scheduler
	start        time.Time
	timers       timers
	busy         bool // the last wait brought more than one event
	events       [batch]unix.EpollEvent

	mu      sync.Mutex
	mail    []func()
	stopped bool // no more mail is taken
	stop    bool // loop-owned: leave Run after this batch
}

// New opens the epoll instance and its wake-up descriptor.
func New() (*Loop, error) {
	epfd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	wakefd, err := unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC)
	if err != nil {
		sys.Close(epfd)
		return nil, os.NewSyscallError("eventfd", err)
	}
	l := &Loop{epfd: epfd, wakefd: wakefd, start: time.Now()}
	l.tick()
	if err := l.Add(wakefd, unix.EPOLLIN|unix.EPOLLET, Tag{Slot: NoSlot}); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

// Close frees the loop's descriptors. Run must have returned or never started.
func (l *Loop) Close() {
	sys.Close(l.epfd)
	sys.Close(l.wakefd)
}

// Now is the monotonic time, in nanoseconds since New, at which the current
// batch began.
func (l *Loop) Now() int64 { return l.now }

// Clock is the monotonic time of this moment on the scale of Now.
func (l *Loop) Clock() int64 { return int64(time.Since(l.start)) }

// Wall turns a time of Now into wall-clock time.
func (l *Loop) Wall(at int64) time.Time { return l.start.Add(time.Duration(at)) }

// Advance moves the clock forward by d, so that a test need not wait for a timer.
// It is called on the loop's goroutine.
func (l *Loop) Advance(d time.Duration) { l.start = l.start.Add(-d) }

func (l *Loop) tick() { l.now = l.Clock() }

// Add registers fd for events. It is done once; closing fd removes it.
func (l *Loop) Add(fd int, events uint32, tag Tag) error {
	ev := unix.EpollEvent{Events: events, Fd: int32(tag.Slot), Pad: int32(tag.Gen)}
	if e := sys.EpollAdd(l.epfd, fd, &ev); e != 0 {
		return os.NewSyscallError("epoll_ctl(EPOLL_CTL_ADD)", e)
	}
	return nil
}

// Remove unregisters fd without closing it.
func (l *Loop) Remove(fd int) error {
	return os.NewSyscallError("epoll_ctl(EPOLL_CTL_DEL)", unix.EpollCtl(l.epfd, unix.EPOLL_CTL_DEL, fd, nil))
}

// Post has fn called on the loop's goroutine. It reports false if the loop has
// ended and fn will never run.
func (l *Loop) Post(fn func()) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stopped {
		return false
	}
	l.mail = append(l.mail, fn)
	if len(l.mail) == 1 {
		// The counter cannot overflow and the descriptor is open while
		// stopped is false: the write cannot fail.
		_, _ = unix.Write(l.wakefd, []byte{1, 0, 0, 0, 0, 0, 0, 0})
	}
	return true
}

// Stop makes Run return when the current batch is done. It is called on the
// loop's goroutine; from elsewhere, Post it.
func (l *Loop) Stop() { l.stop = true }

// Run serves events until Stop. It locks the thread.
func (l *Loop) Run(h Handler) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer l.endMail()
	pending := false
	for !l.stop {
		if l.now-l.yielded > int64(yieldEvery) {
			l.yielded = l.now
			runtime.Gosched()
		}
		n, err := l.wait(pending)
		if err != nil {
			return err
		}
		l.tick()
		for i := range l.events[:n] {
			ev := &l.events[i]
			if tag := (Tag{uint32(ev.Fd), uint32(ev.Pad)}); tag.Slot != NoSlot {
				h.Event(tag, ev.Events)
			} else {
				l.deliver()
			}
		}
		for {
			t := l.timers.due(l.now)
			if t == nil {
				break
			}
			h.Expired(t)
		}
		pending = h.Turn()
	}
	return nil
}

// wait fills l.events. It sleeps only if epoll has nothing ready and no work
// is pending. Asking without sleeping is worth it while several events come at
// a time; a loop that serves one now and then goes to sleep at once.
func (l *Loop) wait(pending bool) (int, error) {
	if pending || l.busy {
		n, e := sys.EpollPoll(l.epfd, l.events[:])
		switch {
		case e == unix.EINTR:
			n = 0
		case e != 0:
			return 0, os.NewSyscallError("epoll_pwait", e)
		}
		l.busy = n > 0
		if n > 0 || pending {
			return n, nil
		}
	}
	n, err := unix.EpollWait(l.epfd, l.events[:], l.timers.wait(l.Clock()))
	if err == unix.EINTR {
		return 0, nil
	}
	l.busy = n > 1
	return n, os.NewSyscallError("epoll_wait", err)
}

// deliver runs the mail. The descriptor is edge-triggered and never read: each
// write to it is an edge of its own.
func (l *Loop) deliver() {
	l.mu.Lock()
	mail := l.mail
	l.mail = nil
	l.mu.Unlock()
	for _, fn := range mail {
		fn()
	}
}

// endMail closes the mailbox and runs what is still in it, so that nobody
// waits for an answer that never comes.
func (l *Loop) endMail() {
	l.mu.Lock()
	l.stopped = true
	l.mu.Unlock()
	l.deliver()
}
