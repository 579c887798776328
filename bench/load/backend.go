package load

import (
	"fmt"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"
)

// Services are what a backend offers, each on a port of its own.
type Services struct {
	Exchange uint16 // requests and responses
	Sink     uint16 // takes streams
	Source   uint16 // sends streams
}

// BackendConfig says where a backend listens and whom it expects.
type BackendConfig struct {
	Address netip.Addr // IPv4
	Ports   Services
	Clients []netip.Addr // every other peer is counted as foreign
}

// Backend is the other end of the load.
type Backend struct {
	cfg       BackendConfig
	clients   map[netip.Addr]bool
	loop      *loop
	listeners map[int]role
	conns     []*serverConn // by descriptor
	report    BackendReport

	response []byte
	pattern  pattern
	scratch  []byte
}

type role int

const (
	roleExchange role = iota
	roleSink
	roleSource
)

// serverConn is one connection of a backend.
type serverConn struct {
	fd      int
	role    role
	request [RequestSize]byte
	got     int // bytes of the request
	stream  stream
	trailer []byte // what is still to be sent of the count
	ending  bool
}

// NewBackend makes a backend that listens. Run serves.
func NewBackend(cfg BackendConfig, s Streams) (*Backend, error) {
	loop, err := newLoop(s)
	if err != nil {
		return nil, err
	}
	b := &Backend{
		cfg: cfg, loop: loop, clients: map[netip.Addr]bool{}, listeners: map[int]role{},
		response: newResponse(), pattern: newPattern(), scratch: make([]byte, chunkSize),
	}
	for _, a := range cfg.Clients {
		b.clients[a] = true
	}
	for role, port := range map[role]uint16{
		roleExchange: cfg.Ports.Exchange, roleSink: cfg.Ports.Sink, roleSource: cfg.Ports.Source,
	} {
		if err := b.listen(role, port); err != nil {
			b.shut()
			return nil, fmt.Errorf("listen on %s port %d: %w", cfg.Address, port, err)
		}
	}
	return b, nil
}

func (b *Backend) listen(r role, port uint16) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	b.listeners[fd] = r // shut closes it
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		return os.NewSyscallError("setsockopt(SO_REUSEADDR)", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: b.cfg.Address.As4(), Port: int(port)}); err != nil {
		return os.NewSyscallError("bind", err)
	}
	if err := unix.Listen(fd, 4096); err != nil {
		return os.NewSyscallError("listen", err)
	}
	return b.loop.add(fd, unix.EPOLLIN)
}

// Run reports once that it listens, then serves until the standard input ends.
func (b *Backend) Run() error {
	defer b.shut()
	if err := b.answer(); err != nil {
		return err
	}
	return b.loop.serve(b.handle, b.command)
}

func (b *Backend) command(line string) error {
	if line != "stat" {
		return fmt.Errorf("unknown command %q", line)
	}
	return b.answer()
}

func (b *Backend) answer() error {
	b.report.TimeNS = b.loop.now()
	return b.loop.answer(b.report)
}

func (b *Backend) fault(err error) {
	b.report.Errors++
	if b.report.FirstError == "" {
		b.report.FirstError = "backend: " + err.Error()
	}
}

func (b *Backend) handle(fd int, events uint32) {
	if role, ok := b.listeners[fd]; ok {
		b.accept(fd, role)
		return
	}
	c := b.conns[fd]
	if c == nil {
		return
	}
	var err error
	switch c.role {
	case roleExchange:
		err = b.exchange(c)
	case roleSink:
		err = b.sink(c)
	case roleSource:
		err = b.source(c, events)
	}
	if err != nil {
		b.fault(err)
		b.close(c)
	}
}

func (b *Backend) accept(listener int, r role) {
	for range 64 {
		fd, peer, err := unix.Accept4(listener, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
		if err != nil {
			if !again(err) {
				b.fault(os.NewSyscallError("accept4", err))
			}
			return
		}
		b.admit(peer)
		for len(b.conns) <= fd {
			b.conns = append(b.conns, nil)
		}
		b.conns[fd] = &serverConn{fd: fd, role: r}
		events := uint32(unix.EPOLLIN)
		if r == roleSource {
			events |= unix.EPOLLOUT
		}
		if err := b.loop.add(fd, events); err != nil {
			b.fault(err)
			b.close(b.conns[fd])
		}
	}
}

// admit checks where a connection comes from.
func (b *Backend) admit(peer unix.Sockaddr) {
	b.report.Accepted++
	sa, ok := peer.(*unix.SockaddrInet4)
	if ok && b.clients[netip.AddrFrom4(sa.Addr)] {
		return
	}
	b.report.Foreign++
	if ok && b.report.ForeignPeer == "" {
		b.report.ForeignPeer = netip.AddrFrom4(sa.Addr).String()
	}
}

func (b *Backend) close(c *serverConn) {
	b.conns[c.fd] = nil
	if err := unix.Close(c.fd); err != nil {
		b.fault(os.NewSyscallError("close", err))
	}
}

// shut drops everything; a process that ends does not care for errors.
func (b *Backend) shut() {
	for fd := range b.listeners {
		_ = unix.Close(fd)
	}
	for _, c := range b.conns {
		if c != nil {
			_ = unix.Close(c.fd)
		}
	}
	_ = b.loop.close()
}
