package main

import (
	"context"
	"net"
	"sync"

	"github.com/tproxyd/tproxyd/internal/admin"
	"go.uber.org/zap"
)

// adminServers are the admin servers that run: one on a TCP address, one on a
// unix socket, either or none.
type adminServers struct {
	base                  admin.Config
	tcpConns, socketConns int
	failed                chan error

	settings    adminSettings // in force; of the control goroutine, as what follows
	tcp, socket *adminServer
	running     sync.WaitGroup
}

// adminServer is one of them. It runs once start has been called.
type adminServer struct {
	*admin.Server
	listener net.Listener
	cancel   context.CancelFunc
}

// newAdminServers returns those of base, none yet, with conns connections in all
// at the same time.
func newAdminServers(base admin.Config, conns int) *adminServers {
	socketConns := max(1, conns/4)
	return &adminServers{base: base, tcpConns: conns - socketConns, socketConns: socketConns, failed: make(chan error, 1)}
}

// adminMove is a change from one set of servers to another, with all that can
// fail behind it.
type adminMove struct {
	servers     *adminServers
	to          adminSettings
	tcp, socket *adminServer // that are new
}

// prepare opens what s asks for beyond what is open. What runs stays as it is
// until the move is committed.
func (a *adminServers) prepare(s adminSettings) (*adminMove, error) {
	m := &adminMove{servers: a, to: s}
	var err error
	if s.listen.IsValid() && (a.tcp == nil || s.listen != a.settings.listen) {
		if m.tcp, err = a.openTCP(s); err != nil {
			return nil, err
		}
	}
	if s.socket != "" && (a.socket == nil || s.socket != a.settings.socket) {
		if m.socket, err = a.openSocket(s); err != nil {
			m.discard()
			return nil, err
		}
	}
	return m, nil
}

func (a *adminServers) openTCP(s adminSettings) (*adminServer, error) {
	cfg := a.base
	cfg.Addr, cfg.MaxConns, cfg.Write = s.listen.String(), a.tcpConns, s.write
	server, err := admin.New(cfg)
	if err != nil {
		return nil, err
	}
	return &adminServer{Server: server}, nil
}

func (a *adminServers) openSocket(s adminSettings) (*adminServer, error) {
	listener, err := admin.ListenUnix(s.socket, s.mode)
	if err != nil {
		return nil, err
	}
	cfg := a.base
	cfg.Listener, cfg.MaxConns = listener, a.socketConns
	server, err := admin.New(cfg)
	if err != nil {
		_ = listener.Close()
		return nil, err
	}
	return &adminServer{Server: server, listener: listener}, nil
}

// discard closes what prepare has opened.
func (m *adminMove) discard() {
	for _, s := range []*adminServer{m.tcp, m.socket} {
		if s != nil {
			s.closeUnused()
		}
	}
}

// commit runs the new servers, and only then ends those they replace.
func (m *adminMove) commit() {
	a := m.servers
	if m.tcp != nil || !m.to.listen.IsValid() {
		a.replace(&a.tcp, m.tcp)
	} else {
		a.tcp.SetWrite(m.to.write)
	}
	switch {
	case m.socket != nil || m.to.socket == "":
		a.replace(&a.socket, m.socket)
	case m.to.mode != a.settings.mode:
		if err := a.socket.listener.(*admin.UnixListener).Chmod(m.to.mode); err != nil {
			a.base.Log.Error("change the mode of the admin socket", zap.Error(err))
		}
	}
	a.settings = m.to
}

// replace puts next, nil for none, where a server may be running.
func (a *adminServers) replace(place **adminServer, next *adminServer) {
	last := *place
	*place = next
	if next != nil {
		ctx, cancel := context.WithCancel(context.Background())
		next.cancel = cancel
		a.running.Add(1)
		go a.run(ctx, next)
		a.base.Log.Info("admin address open", zap.Stringer("address", next.Addr()))
	}
	if last != nil {
		last.cancel()
	}
}

func (a *adminServers) run(ctx context.Context, s *adminServer) {
	defer a.running.Done()
	if err := s.Run(ctx); err != nil {
		select {
		case a.failed <- err:
		default:
		}
	}
}

// close ends all servers.
func (a *adminServers) close() {
	a.replace(&a.tcp, nil)
	a.replace(&a.socket, nil)
	a.running.Wait()
}

// closeUnused frees the listener of a server that never ran.
func (s *adminServer) closeUnused() {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_ = s.Run(ctx) // nothing was served
}
