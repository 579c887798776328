package admin

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
)

const (
	defaultMaxConns       = 128
	defaultRequestTimeout = 5 * time.Second

	maxHeaderBytes = 16 << 10
	idleTimeout    = time.Minute
	// shutdownTimeout is what answers on their way get when the server stops.
	shutdownTimeout = time.Second
)

// Config of a [Server]. Gatherer, Live, Ready and Status are required.
type Config struct {
	// Listener to serve on; if it is nil, Addr is listened on.
	Listener net.Listener
	Addr     string

	// Gatherer of /metrics.
	Gatherer prometheus.Gatherer
	// Live returns nil while the process works, Ready while it takes
	// connections; else what is the matter.
	Live, Ready func() error
	// Status returns the state of the daemon.
	Status func() Status
	// Control lists and changes it; without one that part of the API is missing.
	Control Control
	// Tap hands out packets; without one there are none.
	Tap Tap
	// Write lets clients change things. Who can connect to a unix socket, which
	// its permissions decide, always may.
	Write bool

	// Log gets what goes wrong in here; nil means nobody.
	Log *zap.Logger
	// MaxConns is how many connections may be open, 0 means 128.
	MaxConns int
	// RequestTimeout is what a client has to send its request, and again to
	// take the answer; 0 means 5 s.
	RequestTimeout time.Duration
}

// Server is the admin server.
type Server struct {
	listener net.Listener
	http     *http.Server
	write    *atomic.Bool
}

// New opens the listener, so that connections are queued from now on, and
// answered while [Server.Run] runs. Run also closes it.
func New(cfg Config) (*Server, error) {
	if cfg.Gatherer == nil || cfg.Live == nil || cfg.Ready == nil || cfg.Status == nil {
		return nil, errors.New("new admin server: Gatherer, Live, Ready and Status are required")
	}
	if cfg.Log == nil {
		cfg.Log = zap.NewNop()
	}
	if cfg.MaxConns <= 0 {
		cfg.MaxConns = defaultMaxConns
	}
	if cfg.RequestTimeout <= 0 {
		cfg.RequestTimeout = defaultRequestTimeout
	}
	// Not the standard logger, which writes to stderr and waits for it.
	errorLog, err := zap.NewStdLogAt(cfg.Log, zap.WarnLevel)
	if err != nil {
		return nil, fmt.Errorf("new admin server: make error log: %w", err)
	}
	if cfg.Listener == nil {
		cfg.Listener, err = net.Listen("tcp", cfg.Addr)
		if err != nil {
			return nil, fmt.Errorf("open admin listener: %w", err)
		}
	}
	conns := newConns(cfg.MaxConns)
	var write atomic.Bool
	write.Store(cfg.Write || cfg.Listener.Addr().Network() == "unix")
	return &Server{
		listener: cfg.Listener,
		write:    &write,
		http: &http.Server{
			Handler:           conns.answered(newHandler(cfg, write.Load, conns.progress)),
			ReadHeaderTimeout: cfg.RequestTimeout,
			ReadTimeout:       cfg.RequestTimeout,
			WriteTimeout:      cfg.RequestTimeout,
			IdleTimeout:       idleTimeout,
			MaxHeaderBytes:    maxHeaderBytes,
			ConnState:         conns.stateChanged,
			ConnContext:       withConn,
			ErrorLog:          errorLog,
		},
	}, nil
}

// Addr returns the address that is listened on.
func (s *Server) Addr() net.Addr { return s.listener.Addr() }

// SetWrite changes Config.Write of a server that may run.
func (s *Server) SetWrite(may bool) { s.write.Store(may) }

// Run serves until ctx ends and then returns nil; answers on their way get a
// second. It is called once.
func (s *Server) Run(ctx context.Context) error {
	served := make(chan error, 1)
	go s.serve(served)
	select {
	case err := <-served:
		return s.serveError(err)
	case <-ctx.Done():
	}
	shutdown, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
	defer cancel()
	if s.http.Shutdown(shutdown) != nil {
		_ = s.http.Close() // the time is up; the listener is closed already
	}
	if err := <-served; !errors.Is(err, http.ErrServerClosed) {
		return s.serveError(err)
	}
	return nil
}

func (s *Server) serveError(err error) error {
	return fmt.Errorf("serve admin address %s: %w", s.Addr(), err)
}

func (s *Server) serve(done chan<- error) { done <- s.http.Serve(s.listener) }
