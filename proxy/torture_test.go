package proxy

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/tproxyd/tproxyd/internal/sys"
	"golang.org/x/sys/unix"
)

// ending is how one end of a tortured flow ends.
type ending int

const (
	finWhenSent  ending = iota // FIN behind its last byte
	finWhenHeard               // FIN behind its last byte and the other's
	rstWhenAcked               // RST once the proxy has its last byte
	endings
)

// part of a tortured flow: what one end does.
type role struct {
	seed, size, piece int
	end               ending
	pauses            bool
	readBuffer        int // 0: the kernel's
}

// TestTorture runs many flows at once, with random sizes, pieces, pauses,
// windows and endings on both ends.
func TestTorture(t *testing.T) {
	const flows, atOnce = 240, 24
	m := meet(t)
	m.proxy.each(func(w *worker) { w.pipes.max = 4 })
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 1))
	slots := make(chan struct{}, atOnce)
	var running sync.WaitGroup
	all := ways(80)
	for i := range flows {
		slots <- struct{}{}
		cl, srv := m.pair(all[i%len(all)].address)
		roles := randomRoles(random, 2*i)
		running.Go(func() {
			defer func() { <-slots }()
			if err := play(cl, srv, roles); err != nil {
				t.Errorf("flow %d %+v: %v", i, roles, err)
			}
		})
	}
	running.Wait()
	m.wantBooks(t)
	m.records.wait(t, flows)
}

// randomRoles makes up a flow. At most one end resets it, and two do not wait
// for each other.
func randomRoles(random *rand.Rand, seed int) [2]role {
	var roles [2]role
	for i := range roles {
		roles[i] = role{
			seed:   seed + i,
			size:   random.IntN(1 << (1 + random.IntN(21))),
			piece:  1 + random.IntN(1<<(4+random.IntN(14))),
			end:    ending(random.IntN(int(endings))),
			pauses: random.IntN(4) == 0,
		}
		roles[i].piece = max(roles[i].piece, roles[i].size/500)
		if random.IntN(3) == 0 {
			roles[i].readBuffer = 4<<10 + random.IntN(32<<10)
		}
	}
	if roles[0].end == roles[1].end && roles[0].end != finWhenSent {
		roles[random.IntN(2)].end = finWhenSent
	}
	return roles
}

// play runs both ends of a flow.
func play(cl, srv *net.TCPConn, roles [2]role) error {
	ends := [2]*net.TCPConn{cl, srv}
	var errs [2]error
	var running sync.WaitGroup
	for i := range ends {
		running.Go(func() { errs[i] = ends[i].SetDeadline(time.Now().Add(30 * time.Second)) })
	}
	running.Wait()
	for i := range ends {
		running.Go(func() { errs[i] = playEnd(ends[i], roles[i], roles[1-i]) })
	}
	running.Wait()
	return errors.Join(errs[:]...)
}

// playEnd sends what own says and wants what the other end's role says.
func playEnd(c *net.TCPConn, own, other role) error {
	defer c.Close()
	if own.readBuffer > 0 {
		if err := c.SetReadBuffer(own.readBuffer); err != nil {
			return err
		}
	}
	heard := make(chan error, 1)
	aborted := own.end == rstWhenAcked
	go func() { heard <- hear(c, other, aborted) }()
	err := speak(c, own, other.end == rstWhenAcked)
	switch {
	case err != nil:
	case own.end == finWhenSent:
		err = ignoreReset(c.CloseWrite(), other.end == rstWhenAcked)
	case own.end == rstWhenAcked:
		if err = acked(c); err == nil {
			abort(c)
		}
	}
	return errors.Join(err, <-heard)
}

// speak sends own's bytes; the other end may reset while it does.
func speak(c *net.TCPConn, own role, mayBreak bool) error {
	random := rand.New(rand.NewPCG(uint64(own.seed), 2))
	for pos := 0; pos < own.size; {
		b := noiseAt(own.seed, pos)
		n, err := c.Write(b[:min(len(b), own.size-pos, 1+random.IntN(own.piece))])
		if err != nil {
			return ignoreReset(fmt.Errorf("write at %d: %w", pos, err), mayBreak)
		}
		pos += n
		if own.pauses && random.IntN(8) == 0 {
			time.Sleep(time.Duration(random.IntN(1000)) * time.Microsecond) //nolint:forbidigo // a jerky sender
		}
	}
	return nil
}

// hear reads all that the other end says. That is every byte of its role, and
// behind them FIN or RST as it has it, unless this end aborts before.
func hear(c *net.TCPConn, other role, aborts bool) error {
	n, err := readNoise(c, other.seed)
	var differs *net.OpError
	reset := errors.Is(err, unix.ECONNRESET)
	switch {
	case err != nil && !errors.As(err, &differs):
		return err
	case aborts:
		return nil
	case n != other.size:
		return fmt.Errorf("read %d of %d bytes, then %w", n, other.size, errors.Join(io.ErrUnexpectedEOF, err))
	case other.end == rstWhenAcked && !reset && err != nil, other.end != rstWhenAcked && err != nil:
		return fmt.Errorf("read all %d bytes, then %w", n, err)
	}
	return nil
}

func ignoreReset(err error, mayBreak bool) error {
	if mayBreak && (errors.Is(err, unix.ECONNRESET) || errors.Is(err, unix.EPIPE) || errors.Is(err, unix.ENOTCONN)) {
		return nil
	}
	return err
}

// acked waits until the proxy's kernel has all that was written to c.
func acked(c *net.TCPConn) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) { //nolint:forbidigo // polls
		var left int
		var e sys.Errno
		if err := raw.Control(func(fd uintptr) { left, e = sys.Unsent(int(fd)) }); err != nil {
			return err
		}
		if e != 0 {
			return e
		}
		if left == 0 {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%d bytes not acknowledged within %v", left, patience)
		}
	}
}
