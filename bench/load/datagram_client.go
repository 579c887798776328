package load

import (
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tproxyd/tproxyd/internal/sys"
)

const (
	// sendTick is how often the client sends what is due.
	sendTick = 500 * time.Microsecond
	// manyPorts is how many ports the client has where it has many flows.
	manyPorts = 64
	// portRun is how many flows in a row have the same port, and so go out in
	// one call.
	portRun = 16
	// maxHosts bounds the addresses that are used.
	maxHosts = 4000
)

// DatagramConfig says what a datagram client sends.
type DatagramConfig struct {
	Target  netip.AddrPort // IPv4
	Sources netip.Prefix   // own addresses, used in turn
	Flows   int            // which take turns; 0 with Ask
	Size    int            // of each datagram
	Burst   int            // datagrams in one UDP_SEGMENT send; 1: without
	Ask     bool           // every datagram comes from another source and wants an answer
}

// DatagramClient sends datagrams at a fixed rate.
type DatagramClient struct {
	cfg     DatagramConfig
	loop    *loop
	timer   timer
	sockets []*datagramSocket
	out     *outbox
	in      *sys.Receiver
	pattern pattern

	hosts   int
	running bool
	pacer   pacer
	numbers []uint64 // of the next datagram, by flow
	next    int      // flow
	source  int      // of the next query, over all epochs
	bufs    [][]byte // by place in the outbox
	at      *datagramSocket

	tally  tally // of the answers
	report DatagramReport
}

// NewDatagramClient makes a client. Run starts it.
func NewDatagramClient(cfg DatagramConfig, s Streams) (*DatagramClient, error) {
	hosts := min(maxHosts, 1<<max(0, 32-cfg.Sources.Bits())-2)
	switch {
	case cfg.Ask != (cfg.Flows == 0) || cfg.Flows < 0 || cfg.Flows > maxFlows:
		return nil, fmt.Errorf("datagram client: %d flows, ask %t: one or the other, up to %d flows", cfg.Flows, cfg.Ask, maxFlows)
	case cfg.Size < MinDatagram || cfg.Burst < 1 || cfg.Size*cfg.Burst > MaxDatagram:
		return nil, fmt.Errorf("datagram client: %d datagrams of %d bytes in a burst: %d bytes to %d altogether", cfg.Burst, cfg.Size, MinDatagram, MaxDatagram)
	case !cfg.Target.Addr().Is4() || !cfg.Sources.Addr().Is4() || hosts < 1:
		return nil, fmt.Errorf("datagram client of %s from %s: needs IPv4 addresses, and some sources", cfg.Target, cfg.Sources)
	}
	loop, err := newLoop(s)
	if err != nil {
		return nil, err
	}
	c := &DatagramClient{
		cfg: cfg, loop: loop, timer: timer{-1}, hosts: hosts, pattern: newPattern(),
		out: newOutbox(portRun), numbers: make([]uint64, max(1, cfg.Flows)),
	}
	for range portRun {
		c.bufs = append(c.bufs, make([]byte, cfg.Size*cfg.Burst))
	}
	if err := c.open(); err != nil {
		c.close()
		return nil, err
	}
	return c, nil
}

func (c *DatagramClient) open() (err error) {
	if c.timer, err = newTimer(); err != nil {
		return err
	}
	if err := c.loop.add(c.timer.fd, unix.EPOLLIN); err != nil {
		return err
	}
	ports := 1
	if c.cfg.Ask || c.cfg.Flows > portRun {
		ports = manyPorts
	}
	for range ports {
		s, err := openDatagramSocket(netip.AddrPortFrom(netip.IPv4Unspecified(), 0))
		if err != nil {
			return err
		}
		c.sockets = append(c.sockets, s)
		if err := c.loop.add(s.fd, unix.EPOLLIN); err != nil {
			return err
		}
	}
	c.in = sys.NewReceiver(receiveSlots)
	return nil
}

func (c *DatagramClient) close() {
	for _, s := range c.sockets {
		s.close()
	}
	if c.timer.fd >= 0 {
		c.timer.close()
	}
	_ = c.loop.close()
}

// Run reports once that it is ready, and obeys the standard input until it ends.
func (c *DatagramClient) Run() error {
	defer c.close()
	if err := c.answer(); err != nil {
		return err
	}
	return c.loop.serve(c.handle, c.command)
}

func (c *DatagramClient) command(line string) error {
	var epoch uint32
	var rate float64
	switch n, _ := fmt.Sscanf(line, "start %d %f", &epoch, &rate); {
	case n == 2:
		if err := c.start(epoch, rate); err != nil {
			return err
		}
	case line == "stop":
		c.running = false
		if err := c.timer.tick(0); err != nil {
			return err
		}
	case line != "stat":
		return fmt.Errorf("unknown command %q", line)
	}
	return c.answer()
}

func (c *DatagramClient) start(epoch uint32, rate float64) error {
	c.running, c.tally = true, tally{}
	clear(c.numbers)
	c.report = DatagramReport{
		Epoch: epoch, Foreign: c.report.Foreign, ForeignPeer: c.report.ForeignPeer,
		Errors: c.report.Errors, FirstError: c.report.FirstError,
	}
	for _, s := range c.sockets {
		s.before = s.overflow
	}
	c.pacer = pacer{rate: rate, start: monotonic()}
	return c.timer.tick(sendTick)
}

func (c *DatagramClient) answer() error {
	c.tally.report(&c.report)
	c.report.TimeNS = monotonic()
	c.report.Overflow = 0
	for _, s := range c.sockets {
		c.report.Overflow += uint64(s.overflow - s.before)
	}
	return c.loop.answer(c.report)
}

func (c *DatagramClient) fault(err error) {
	c.report.Errors++
	if c.report.FirstError == "" {
		c.report.FirstError = "datagram client: " + err.Error()
	}
}

func (c *DatagramClient) handle(fd int, _ uint32) {
	if fd == c.timer.fd {
		err := c.timer.ticked()
		if err == nil && c.running {
			err = c.send(c.pacer.due(monotonic(), c.cfg.Burst))
		}
		if err != nil {
			c.fault(err)
		}
		return
	}
	for _, s := range c.sockets {
		if s.fd != fd {
			continue
		}
		now := monotonic()
		err := s.receive(c.in, func(from netip.AddrPort, data []byte) { c.take(from, data, s.port, now) })
		if err != nil {
			c.fault(err)
		}
	}
}
