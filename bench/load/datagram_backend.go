package load

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tproxyd/tproxyd/internal/sys"
)

// answerTick is how often answers that are due are looked for.
const answerTick = 500 * time.Microsecond

// DatagramBackendConfig says where a datagram backend listens and whom and what
// it expects.
type DatagramBackendConfig struct {
	Listen  []netip.AddrPort // IPv4
	Clients netip.Prefix     // every other source is counted as foreign
	Size    int              // of each datagram
}

// DatagramBackend counts datagrams and answers those that want it.
type DatagramBackend struct {
	cfg     DatagramBackendConfig
	loop    *loop
	timer   timer
	ticking bool
	sockets map[int]*datagramSocket
	in      *sys.Receiver
	out     *outbox
	bufs    [][]byte // by place in the outbox
	pattern pattern

	delay   time.Duration
	waiting []pendingAnswer // the oldest first
	tally   tally
	report  DatagramReport
}

// pendingAnswer is one that the client has not got yet.
type pendingAnswer struct {
	due  int64
	via  *datagramSocket
	to   netip.AddrPort
	what datagram
}

// NewDatagramBackend makes a backend that listens. Run serves.
func NewDatagramBackend(cfg DatagramBackendConfig, s Streams) (*DatagramBackend, error) {
	loop, err := newLoop(s)
	if err != nil {
		return nil, err
	}
	b := &DatagramBackend{
		cfg: cfg, loop: loop, timer: timer{-1}, sockets: map[int]*datagramSocket{},
		out: newOutbox(receiveSlots), pattern: newPattern(),
	}
	for range receiveSlots {
		b.bufs = append(b.bufs, make([]byte, cfg.Size))
	}
	if err := b.open(); err != nil {
		b.close()
		return nil, err
	}
	return b, nil
}

func (b *DatagramBackend) open() (err error) {
	if b.timer, err = newTimer(); err != nil {
		return err
	}
	if err := b.loop.add(b.timer.fd, unix.EPOLLIN); err != nil {
		return err
	}
	for _, addr := range b.cfg.Listen {
		s, err := openDatagramSocket(addr)
		if err != nil {
			return err
		}
		b.sockets[s.fd] = s
		if err := b.loop.add(s.fd, unix.EPOLLIN); err != nil {
			return err
		}
	}
	b.in = sys.NewReceiver(receiveSlots)
	return nil
}

func (b *DatagramBackend) close() {
	for _, s := range b.sockets {
		s.close()
	}
	if b.timer.fd >= 0 {
		b.timer.close()
	}
	_ = b.loop.close()
}

// Run reports once that it listens, then serves until the standard input ends.
func (b *DatagramBackend) Run() error {
	defer b.close()
	if err := b.answer(); err != nil {
		return err
	}
	return b.loop.serve(b.handle, b.command)
}

func (b *DatagramBackend) command(line string) error {
	var epoch uint32
	var delay int64
	switch n, _ := fmt.Sscanf(line, "start %d %d", &epoch, &delay); {
	case n == 2:
		b.tally, b.delay = tally{}, time.Duration(delay)
		b.report.Epoch = epoch
		for _, s := range b.sockets {
			s.before = s.overflow
		}
	case line != "stat":
		return fmt.Errorf("unknown command %q", line)
	}
	return b.answer()
}

func (b *DatagramBackend) answer() error {
	b.tally.report(&b.report)
	b.report.TimeNS = monotonic()
	b.report.Overflow = 0
	for _, s := range b.sockets {
		b.report.Overflow += uint64(s.overflow - s.before)
	}
	return b.loop.answer(b.report)
}

func (b *DatagramBackend) fault(err error) {
	b.report.Errors++
	if b.report.FirstError == "" {
		b.report.FirstError = "datagram backend: " + err.Error()
	}
}

func (b *DatagramBackend) handle(fd int, _ uint32) {
	var err error
	if s := b.sockets[fd]; s != nil {
		now := monotonic()
		err = s.receive(b.in, func(from netip.AddrPort, data []byte) { b.take(s, from, data, now) })
	} else if fd == b.timer.fd {
		err = b.timer.ticked()
	}
	if err != nil {
		b.fault(err)
	}
	if err := b.sendDue(); err != nil {
		b.fault(err)
	}
}

// take counts a datagram, which has to come from the very address and port that
// its client sent it from.
func (b *DatagramBackend) take(via *datagramSocket, from netip.AddrPort, data []byte, now int64) {
	d, err := parseDatagram(data, b.cfg.Size, b.pattern)
	if err != nil {
		b.fault(err)
		return
	}
	if !b.cfg.Clients.Contains(from.Addr()) || from.Port() != d.port {
		b.report.Foreign++
		if b.report.ForeignPeer == "" {
			b.report.ForeignPeer = from.String()
		}
	}
	if d.epoch == b.report.Epoch {
		b.tally.add(d.flow, d.seq, now)
	}
	if d.kind == kindQuery {
		d.kind = kindReply
		b.waiting = append(b.waiting, pendingAnswer{due: now + int64(b.delay), via: via, to: from, what: d})
	}
}

// sendDue sends the answers whose time has come. The timer ticks while there
// are others.
func (b *DatagramBackend) sendDue() error {
	now := monotonic()
	due := 0
	var errs []error
	for ; due < len(b.waiting) && b.waiting[due].due <= now; due++ {
		p := b.waiting[due]
		buf := b.bufs[b.out.n]
		p.what.put(buf, b.pattern)
		b.out.add(netip.Addr{}, p.to, 0, buf)
		next := due + 1
		if b.out.full() || next == len(b.waiting) || b.waiting[next].due > now || b.waiting[next].via != p.via {
			errs = append(errs, b.out.flush(p.via.fd))
		}
	}
	b.report.Sent += uint64(due)
	b.waiting = append(b.waiting[:0], b.waiting[due:]...)
	return errors.Join(append(errs, b.setTicking(len(b.waiting) > 0))...)
}

func (b *DatagramBackend) setTicking(on bool) error {
	if on == b.ticking {
		return nil
	}
	b.ticking = on
	every := time.Duration(0)
	if on {
		every = answerTick
	}
	return b.timer.tick(every)
}
