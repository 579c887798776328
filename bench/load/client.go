package load

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// Mode is what a client does.
type Mode string

// The modes of a client.
const (
	KeepAlive Mode = "keepalive" // exchanges, one at a time per flow
	Connect   Mode = "connect"   // a flow per exchange, closed by the backend
	Up        Mode = "up"        // streams to the backend
	Down      Mode = "down"      // streams from the backend
	Idle      Mode = "idle"      // flows that rest after their first exchange
)

const (
	// idleOpening bounds how many idle flows are being opened at once.
	idleOpening = 64
	// maxErrors ends the opening of new flows: something is wrong for good.
	maxErrors = 100
	// stopTimeout is how long flows may take to finish after stop.
	stopTimeout = 10 * time.Second
)

// ClientConfig says what a client does. All fields are needed.
type ClientConfig struct {
	Mode    Mode
	Target  netip.AddrPort // IPv4
	Flows   int            // at the same time
	Sources []netip.Addr   // own addresses, used in turn
}

// Client is a load generator.
type Client struct {
	cfg      ClientConfig
	loop     *loop
	flows    []*flow // by descriptor
	open     int
	opened   uint64 // flows since the start
	stopping bool
	ready    bool // the first report has been sent

	report  ClientReport
	latency Histogram

	request  []byte
	response []byte
	pattern  pattern
	scratch  []byte
}

// flow is one connection of a client.
type flow struct {
	id     uint64
	fd     int
	warm   bool  // has finished an exchange or carried bytes
	begun  int64 // when the exchange, or in mode Connect the connection, began
	got    int   // bytes of the response, or of an upload's trailer
	seq    uint64
	stream stream
	tail   tail
}

// NewClient makes a client. Run starts it.
func NewClient(cfg ClientConfig, s Streams) (*Client, error) {
	if cfg.Flows < 1 || len(cfg.Sources) == 0 || !cfg.Target.Addr().Is4() {
		return nil, fmt.Errorf("client of %s: needs flows, source addresses and an IPv4 target", cfg.Target)
	}
	loop, err := newLoop(s)
	if err != nil {
		return nil, err
	}
	kind := byte(kindKeep)
	if cfg.Mode == Connect {
		kind = kindClose
	}
	return &Client{
		cfg: cfg, loop: loop,
		request: newRequest(kind), response: newResponse(), pattern: newPattern(),
		scratch: make([]byte, chunkSize),
	}, nil
}

// Run opens the flows, reports once when each of them works or one has failed,
// and then obeys the standard input until stop or its end.
func (c *Client) Run() error {
	defer c.close()
	n := c.cfg.Flows
	if c.cfg.Mode == Idle {
		n = min(n, idleOpening)
	}
	for range n {
		c.openFlow()
	}
	var deadline time.Time
	for {
		if c.stopping && deadline.IsZero() {
			deadline = time.Now().Add(stopTimeout)
		}
		if err := c.announce(); err != nil {
			return err
		}
		timeout := time.Duration(-1)
		if c.stopping {
			if c.open == 0 {
				return c.answer()
			}
			if timeout = time.Until(deadline); timeout <= 0 {
				c.fault(fmt.Errorf("%d flows did not finish within %s of stop", c.open, stopTimeout))
				return c.answer()
			}
		}
		err := c.loop.wait(timeout, c.handle, c.command)
		if errors.Is(err, errEnd) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (c *Client) announce() error {
	if c.ready || (c.report.Flows < c.cfg.Flows && c.report.Errors == 0) {
		return nil
	}
	c.ready = true
	return c.answer()
}

func (c *Client) answer() error {
	c.report.TimeNS = c.loop.now()
	c.report.P50NS, c.report.P99NS = c.latency.Quantile(0.5), c.latency.Quantile(0.99)
	return c.loop.answer(c.report)
}

func (c *Client) command(line string) error {
	switch line {
	case "begin":
		c.latency.Reset()
		return c.answer()
	case "stat":
		return c.answer()
	case "stop":
		c.stop()
		return nil // Run answers when all flows have ended
	}
	return fmt.Errorf("unknown command %q", line)
}

// stop lets every flow come to its end. Exchanges finish by themselves.
func (c *Client) stop() {
	c.stopping = true
	for _, f := range c.flows {
		if f == nil {
			continue
		}
		var err error
		switch c.cfg.Mode {
		case Up, Down:
			if err = shutdownWrite(f.fd); err == nil {
				err = c.loop.modify(f.fd, unix.EPOLLIN)
			}
		case Idle:
			err = c.sendRequest(f)
		case KeepAlive, Connect:
		}
		if err != nil {
			c.fail(f, err)
		}
	}
}

// handle does what a flow is ready for.
func (c *Client) handle(fd int, events uint32) {
	f := c.flows[fd]
	if f == nil {
		return
	}
	var err error
	switch c.cfg.Mode {
	case KeepAlive, Connect, Idle:
		err = c.exchange(f, events)
	case Up:
		err = c.upload(f, events)
	case Down:
		err = c.download(f, events)
	}
	if err != nil {
		c.fail(f, err)
	}
}

// close drops what is left; a process that ends does not care for errors.
func (c *Client) close() {
	for _, f := range c.flows {
		if f != nil {
			_ = unix.Close(f.fd)
		}
	}
	_ = c.loop.close()
}

// fault counts an error that is not of one flow alone.
func (c *Client) fault(err error) {
	c.report.Errors++
	if c.report.FirstError == "" {
		c.report.FirstError = err.Error()
	}
}

// fail ends a flow with an error. Mode Connect goes on with another one.
func (c *Client) fail(f *flow, err error) {
	c.fault(fmt.Errorf("flow %d of %d (%s to %s): %w", f.id, c.cfg.Flows, c.source(f.id), c.cfg.Target, err))
	c.closeFlow(f)
	if c.cfg.Mode == Connect && !c.stopping && c.report.Errors < maxErrors {
		c.openFlow()
	}
}

// warmed notes that a flow works.
func (c *Client) warmed(f *flow) {
	if f.warm {
		return
	}
	f.warm = true
	c.report.Flows++
	if c.cfg.Mode == Idle && c.opened < uint64(c.cfg.Flows) && !c.stopping {
		c.openFlow()
	}
}
