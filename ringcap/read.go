package ringcap

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tproxyd/tproxyd/internal/tpacket"
)

const (
	// linkCheck is how often a ring whose interface is down or gone looks for
	// it.
	linkCheck = 100 * time.Millisecond
	// stopLimit is how long stopping waits for the kernel to close its last
	// block, beyond the retire time.
	stopLimit = 2 * time.Second
)

// ErrFanoutLost says that the interface of a ring in a fanout group was deleted.
// The kernel does not let a member of a group move to another interface: close
// the rings of the group and open them again.
var ErrFanoutLost = errors.New("interface of the fanout group is gone")

// Blocks yields the blocks of the ring as they come, until ctx ends. Then the
// kernel is told to take no more packets, and what it has taken is yielded
// before the loop ends: nothing that was captured is lost. Leaving the loop by
// break leaves the rest in the ring for the next call.
//
// A block comes with an error if its contents make no sense; the loop goes on
// with the next. An error without a block ends the loop. That an interface goes
// down is no error: the ring waits for it, also when it is deleted and made
// anew under its name.
//
// A ring has one reader.
func (r *Ring) Blocks(ctx context.Context) iter.Seq2[*Block, error] {
	return r.blocksBy(ctx, func(b *Block, yield func(*Block, error) bool, err error) bool {
		err = errors.Join(err, b.walk())
		b.count(b.Walked())
		return yield(b, err)
	})
}

// lend yields a block, and counts it.
type lend func(b *Block, yield func(*Block, error) bool, err error) bool

// consumed is for readers that walk over every block themselves, once. They are
// not told what is wrong with it.
func consumed(b *Block, yield func(*Block, error) bool, err error) bool {
	more := yield(b, err)
	b.count(b.Walked())
	return more
}

// unseen is for readers that do not look at blocks, which would cost them more
// than all the rest.
func unseen(b *Block, yield func(*Block, error) bool, err error) bool {
	b.count(b.Estimate())
	return yield(b, err)
}

// blocksBy is Blocks for readers that have another way of counting.
func (r *Ring) blocksBy(ctx context.Context, by lend) iter.Seq2[*Block, error] {
	return func(yield func(*Block, error) bool) {
		if r.closed.Load() {
			yield(nil, fmt.Errorf("read ring: %w", os.ErrClosed))
			return
		}
		if r.busy.Swap(true) {
			yield(nil, errors.New("read ring: it has a reader"))
			return
		}
		defer r.busy.Store(false)
		for {
			more, took := r.drain(yield, by)
			if !more {
				return
			}
			if ctx.Err() != nil {
				break
			}
			if took {
				continue
			}
			if err := r.wait(ctx); err != nil && ctx.Err() == nil {
				yield(nil, fmt.Errorf("read ring on %s: %w", r.cfg.Interface, err))
				return
			}
		}
		if err := r.finish(yield, by); err != nil {
			yield(nil, fmt.Errorf("stop ring on %s: %w", r.cfg.Interface, err))
		}
	}
}

// drain yields the blocks that are ready, at most once around the ring.
func (r *Ring) drain(yield func(*Block, error) bool, by lend) (more, took bool) {
	for range r.blocks {
		b := &r.blocks[r.next]
		ready, err := b.take()
		if !ready {
			return true, took
		}
		took = true
		r.next = (r.next + 1) % len(r.blocks)
		more := by(b, yield, err)
		b.Release()
		if !more {
			return false, true
		}
	}
	return true, took
}

// ready says whether the next block has been handed over.
func (r *Ring) ready() bool {
	b := &r.blocks[r.next]
	return !b.held.Load() && tpacket.Ready(b.mem)
}

// wait sleeps until a block is ready, or something else is worth a look.
func (r *Ring) wait(ctx context.Context) error {
	deadline := time.Time{}
	if r.blocks[r.next].held.Load() {
		// All blocks are retained. No event tells that one was released, when
		// nothing comes in after it.
		deadline = time.Now().Add(r.cfg.Retire)
	}
	if r.down {
		if err := r.checkLink(); err != nil {
			return err
		}
		deadline = time.Now().Add(linkCheck)
	}
	var pending error
	err := r.poller.wait(ctx, deadline, func() bool {
		if r.ready() {
			return true
		}
		pending = r.sock.takeError()
		return pending != nil
	})
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil
	case err != nil || pending == nil:
		return err
	case !errors.Is(pending, unix.ENETDOWN):
		return pending
	}
	if !r.down {
		r.down = true
		r.mu.Lock()
		r.stats.Downs++
		r.mu.Unlock()
	}
	return nil
}

// checkLink looks whether the interface is up again. The kernel then receives
// by itself, unless it is another interface of the same name: the socket is
// bound to that.
//
// The flags are asked for, as an interface that is being deleted is down first,
// and of what follows the kernel says nothing more.
func (r *Ring) checkLink() error {
	index, err := r.sock.index(r.cfg.Interface)
	if errors.Is(err, unix.ENODEV) {
		return nil
	}
	if err != nil {
		return err
	}
	if index != r.sock.ifindex {
		if r.cfg.Fanout != nil {
			return ErrFanoutLost
		}
		if err := r.sock.bind(r.cfg); err != nil && !errors.Is(err, unix.ENODEV) {
			return err
		}
		// Bound to an interface that is down, the socket says so once.
		if err := r.sock.takeError(); err != nil && !errors.Is(err, unix.ENETDOWN) {
			return err
		}
	}
	up, err := r.sock.up(r.cfg.Interface)
	if err != nil && !errors.Is(err, unix.ENODEV) {
		return err
	}
	r.down = !up
	return nil
}

// finish shuts the ring and yields what is in it.
func (r *Ring) finish(yield func(*Block, error) bool, by lend) error {
	if err := r.sock.shut(); err != nil {
		return err
	}
	limit := time.Now().Add(r.cfg.Retire + stopLimit)
	for quiet := 0; quiet < 2; {
		// Anything in the open block comes when the retire timer has fired; a
		// packet that was on its way past the filter comes within that, too.
		err := r.poller.wait(context.Background(), time.Now().Add(r.cfg.Retire+time.Millisecond), r.ready)
		if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			return err
		}
		more, took := r.drain(yield, by)
		if !more {
			return nil
		}
		s, err := r.Stats()
		if err != nil {
			return err
		}
		// Stale frames of blocks that nobody looked at are taken and dropped.
		switch missing := int64(s.Packets - s.Drops - s.Taken); {
		case !took && missing <= 0:
			quiet++
		case time.Now().After(limit):
			return fmt.Errorf("%d packets did not leave the ring within %v", missing, r.cfg.Retire+stopLimit)
		default:
			quiet = 0
		}
	}
	return nil
}
