package load

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// exchange answers a request when it is complete.
func (b *Backend) exchange(c *serverConn) error {
	n, err := unix.Read(c.fd, c.request[c.got:])
	if err != nil {
		if again(err) {
			return nil
		}
		return os.NewSyscallError("read of request", err)
	}
	if n == 0 {
		if c.got > 0 {
			return fmt.Errorf("connection ended after %d of %d bytes of a request", c.got, RequestSize)
		}
		b.close(c)
		return nil
	}
	c.got += n
	if c.got < RequestSize {
		return nil
	}
	c.got = 0
	return b.respond(c)
}

func (b *Backend) respond(c *serverConn) error {
	kind := c.request[kindOffset]
	if string(c.request[:kindOffset]) != requestHead || (kind != kindKeep && kind != kindClose) {
		return fmt.Errorf("request is not one of ours: %q", c.request[:])
	}
	copy(b.response[echoOffset:], c.request[idOffset:idOffset+idSize])
	n, err := unix.Write(c.fd, b.response)
	if err != nil {
		return os.NewSyscallError("write of response", err)
	}
	if n != ResponseSize {
		return fmt.Errorf("write of response: %d of %d bytes taken", n, ResponseSize)
	}
	if kind == kindClose {
		b.close(c)
	}
	return nil
}

// sink takes a stream and at its end returns the count.
func (b *Backend) sink(c *serverConn) error {
	n, err := c.stream.receive(c.fd, b.pattern, b.scratch)
	if err != nil {
		return err
	}
	if n >= 0 {
		b.report.Bytes += uint64(n)
		return nil
	}
	trailer := newTail(c.stream.off)
	if _, err := unix.Write(c.fd, trailer[:]); err != nil { // eight bytes go whole or not at all
		return os.NewSyscallError("write of count", err)
	}
	b.close(c)
	return nil
}

// source sends a stream until the client ends its side, then the count.
func (b *Backend) source(c *serverConn, events uint32) error {
	if events&(unix.EPOLLIN|unix.EPOLLERR|unix.EPOLLHUP) != 0 && !c.ending {
		n, err := unix.Read(c.fd, b.scratch)
		if err != nil && !again(err) {
			return os.NewSyscallError("read", err)
		}
		if n > 0 {
			return fmt.Errorf("%d bytes from the client of a download", n)
		}
		if err == nil {
			c.ending = true
			trailer := newTail(c.stream.off)
			c.trailer = trailer[:]
			if err := b.loop.modify(c.fd, unix.EPOLLOUT); err != nil {
				return err
			}
		}
	}
	if !c.ending {
		if events&unix.EPOLLOUT == 0 {
			return nil
		}
		return c.stream.send(c.fd, b.pattern)
	}
	n, err := unix.Write(c.fd, c.trailer)
	if err != nil {
		if again(err) {
			return nil
		}
		return os.NewSyscallError("write of count", err)
	}
	if c.trailer = c.trailer[n:]; len(c.trailer) == 0 {
		b.close(c)
	}
	return nil
}
