package load

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"
)

func (c *Client) source(id uint64) netip.Addr {
	return c.cfg.Sources[id%uint64(len(c.cfg.Sources))]
}

// openFlow begins a connection. A failure is counted.
func (c *Client) openFlow() {
	f := &flow{id: c.opened, begun: c.loop.now()}
	c.opened++
	fd, err := dial(c.source(f.id), c.cfg.Target)
	if err != nil {
		c.fault(fmt.Errorf("flow %d of %d: %w", f.id, c.cfg.Flows, err))
		return
	}
	f.fd = fd
	for len(c.flows) <= fd {
		c.flows = append(c.flows, nil)
	}
	c.flows[fd] = f
	c.open++
	events := uint32(unix.EPOLLIN | unix.EPOLLOUT | unix.EPOLLET&0xffffffff)
	switch c.cfg.Mode {
	case Up:
		events = unix.EPOLLOUT
	case Down:
		events = unix.EPOLLIN
	case KeepAlive, Connect, Idle:
	}
	if err := c.loop.add(fd, events); err != nil {
		c.fault(fmt.Errorf("flow %d of %d: %w", f.id, c.cfg.Flows, err))
		c.closeFlow(f)
	}
}

// dial begins a connection from the address, with a port that the kernel chooses
// when it connects, so that a port may serve several destinations: ip(7),
// IP_BIND_ADDRESS_NO_PORT.
func dial(from netip.Addr, to netip.AddrPort) (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	if err := connect(fd, from, to); err != nil {
		return -1, errors.Join(fmt.Errorf("connect from %s to %s: %w", from, to, err), unix.Close(fd))
	}
	return fd, nil
}

func connect(fd int, from netip.Addr, to netip.AddrPort) error {
	if err := unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1); err != nil {
		return os.NewSyscallError("setsockopt(IP_BIND_ADDRESS_NO_PORT)", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: from.As4()}); err != nil {
		return os.NewSyscallError("bind", err)
	}
	err := unix.Connect(fd, &unix.SockaddrInet4{Addr: to.Addr().As4(), Port: int(to.Port())})
	if err != nil && !errors.Is(err, unix.EINPROGRESS) {
		return os.NewSyscallError("connect", err)
	}
	return nil
}

func (c *Client) closeFlow(f *flow) {
	c.flows[f.fd] = nil
	c.open--
	if err := unix.Close(f.fd); err != nil {
		c.fault(fmt.Errorf("close flow %d: %w", f.id, err))
	}
}

func shutdownWrite(fd int) error {
	return os.NewSyscallError("shutdown(SHUT_WR)", unix.Shutdown(fd, unix.SHUT_WR))
}

// sendRequest begins an exchange. One request always fits the send buffer.
func (c *Client) sendRequest(f *flow) error {
	f.seq++
	f.got = 0
	if c.cfg.Mode != Connect {
		f.begun = c.loop.now()
	}
	putID(c.request[idOffset:], f.id<<32|f.seq)
	n, err := unix.Write(f.fd, c.request)
	if err != nil {
		return os.NewSyscallError("write of request", err)
	}
	if n != RequestSize {
		return fmt.Errorf("write of request: %d of %d bytes taken", n, RequestSize)
	}
	return nil
}

// exchange goes on with the flow's request and response. The descriptor is
// watched edge-triggered: read until there is no more.
func (c *Client) exchange(f *flow, events uint32) error {
	if f.seq == 0 {
		if events&(unix.EPOLLOUT|unix.EPOLLERR|unix.EPOLLHUP) == 0 {
			return nil
		}
		return c.sendRequest(f) // reports a connection that failed
	}
	for {
		n, err := unix.Read(f.fd, c.scratch[f.got:ResponseSize+1])
		if err != nil {
			if again(err) {
				return nil
			}
			return os.NewSyscallError("read of response", err)
		}
		if n == 0 {
			return c.endOfFlow(f)
		}
		if f.got+n > ResponseSize {
			return fmt.Errorf("response is longer than %d bytes", ResponseSize)
		}
		if err := c.respond(f, n); err != nil {
			return err
		}
		if f.got == ResponseSize && c.cfg.Mode != Connect {
			return c.nextExchange(f)
		}
	}
}

// respond takes the next n bytes of the response, which are in scratch where
// they belong: other flows use it too, so each piece is compared at once.
func (c *Client) respond(f *flow, n int) error {
	putID(c.response[echoOffset:], f.id<<32|f.seq)
	if !bytes.Equal(c.scratch[f.got:f.got+n], c.response[f.got:f.got+n]) {
		return fmt.Errorf("response differs in the %d bytes after offset %d: %q", n, f.got, c.scratch[f.got:f.got+n])
	}
	f.got += n
	if f.got == ResponseSize {
		c.latency.Record(c.loop.now() - f.begun)
	}
	return nil
}

func (c *Client) nextExchange(f *flow) error {
	c.report.Operations++
	c.warmed(f)
	if c.stopping {
		c.closeFlow(f)
		return nil
	}
	if c.cfg.Mode == Idle {
		return nil
	}
	return c.sendRequest(f)
}

func (c *Client) endOfFlow(f *flow) error {
	if c.cfg.Mode != Connect || f.got != ResponseSize {
		return fmt.Errorf("connection ended after %d of %d bytes of response %d", f.got%ResponseSize, ResponseSize, f.seq)
	}
	c.report.Operations++
	c.warmed(f)
	c.closeFlow(f)
	if !c.stopping {
		c.openFlow()
	}
	return nil
}

// upload sends, and after stop waits for the count that the backend returns.
func (c *Client) upload(f *flow, events uint32) error {
	if !c.stopping {
		if events&(unix.EPOLLERR|unix.EPOLLHUP) == 0 && events&unix.EPOLLOUT == 0 {
			return nil
		}
		before := f.stream.off
		if err := f.stream.send(f.fd, c.pattern); err != nil {
			return err
		}
		if f.stream.off > before {
			c.warmed(f)
		}
		return nil
	}
	ended, err := c.readTail(f)
	if err != nil || !ended {
		return err
	}
	if f.got != trailerSize || f.tail.count() != f.stream.off {
		return fmt.Errorf("sent %d bytes, the backend answered %d bytes and the count %d", f.stream.off, f.got, f.tail.count())
	}
	c.closeFlow(f)
	return nil
}

// download receives; after stop also the backend's count of what it sent.
func (c *Client) download(f *flow, events uint32) error {
	if !c.stopping {
		n, err := f.stream.receive(f.fd, c.pattern, c.scratch)
		if err != nil {
			return err
		}
		if n < 0 {
			return fmt.Errorf("stream ended after %d bytes, events %#x", f.stream.off, events)
		}
		if n > 0 {
			c.report.Bytes += uint64(n)
			c.warmed(f)
		}
		return nil
	}
	ended, err := c.readTail(f)
	if err != nil || !ended {
		return err
	}
	received := f.stream.off + uint64(f.got)
	if want := f.tail.count() + trailerSize; received != want {
		return fmt.Errorf("received %d bytes, the backend sent %d", received, want)
	}
	c.closeFlow(f)
	return nil
}

// readTail reads one chunk of what comes after stop and tells whether it was
// the end.
func (c *Client) readTail(f *flow) (ended bool, err error) {
	n, err := unix.Read(f.fd, c.scratch)
	if err != nil {
		if again(err) {
			return false, nil
		}
		return false, os.NewSyscallError("read after stop", err)
	}
	f.tail.add(c.scratch[:n])
	f.got += n
	return n == 0, nil
}
