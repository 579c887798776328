package admin

import (
	"context"
	"net"
	"net/http"
	"sync"
	"time"
)

const (
	// headerGrace is what a connection has at least to send a header, and
	// answerGrace what its answer may take, which is our time as well.
	headerGrace = 100 * time.Millisecond
	answerGrace = time.Second

	// sendBuffer holds an answer of the usual size, so that its handler ends
	// and headerGrace is what is left, whether or not the client takes it.
	sendBuffer = 256 << 10
)

// conns keeps the number of open connections at or below limit.
//
// Every connection has a grace period, which starts anew when net/http changes
// its state: accepted, header complete, answered. For a connection too many,
// the one goes whose grace ended first: a client that feeds its header byte by
// byte, does not take its answer or keeps an idle connection. If nobody's has
// ended, accepting waits until one does. So a scraper that is as quick as
// scrapers are is never cut, and waits its turn for a fraction of a second
// behind hundreds of clients that are not.
type conns struct {
	limit int

	mu    sync.Mutex
	grace map[net.Conn]time.Time // until when
}

func newConns(limit int) *conns {
	return &conns{limit: limit, grace: make(map[net.Conn]time.Time, limit)}
}

// stateChanged is the ConnState hook of the http.Server. For a new connection
// net/http calls it from its accept loop, which is thus made to wait.
func (c *conns) stateChanged(conn net.Conn, state http.ConnState) {
	switch state {
	case http.StateNew:
		if socket, ok := conn.(interface{ SetWriteBuffer(int) error }); ok {
			_ = socket.SetWriteBuffer(sendBuffer) // without it all works, but worse
		}
		wait := c.admit(conn)
		for wait > 0 {
			time.Sleep(wait)
			wait = c.admit(conn)
		}
	case http.StateActive:
		c.renew(conn, answerGrace)
	case http.StateIdle:
		c.renew(conn, headerGrace)
	case http.StateClosed, http.StateHijacked:
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.grace, conn)
	}
}

// connKey is the key of the connection in the context of its requests.
type connKey struct{}

// withConn is the ConnContext hook of the http.Server.
func withConn(ctx context.Context, conn net.Conn) context.Context {
	return context.WithValue(ctx, connKey{}, conn)
}

// answered takes the long grace back when the handler has ended: net/http may
// still wait for the rest of a body then.
func (c *conns) answered(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		next.ServeHTTP(w, r)
		if conn, ok := r.Context().Value(connKey{}).(net.Conn); ok {
			c.renew(conn, headerGrace)
		}
	})
}

// progress gives the connection of r, a piece of whose answer was taken, the long
// grace anew.
func (c *conns) progress(r *http.Request) {
	if conn, ok := r.Context().Value(connKey{}).(net.Conn); ok {
		c.renew(conn, answerGrace)
	}
}

// admit adds conn, at the cost of another one if there is no room, or returns
// how long it has to wait.
func (c *conns) admit(conn net.Conn) (wait time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	if len(c.grace) >= c.limit {
		first, until := c.first()
		if wait := until.Sub(now); wait > 0 {
			return wait
		}
		delete(c.grace, first)
		_ = first.Close() // never blocks, and nothing depends on it
	}
	c.grace[conn] = now.Add(headerGrace)
	return 0
}

// first returns the connection whose grace ends first.
func (c *conns) first() (first net.Conn, until time.Time) {
	for conn, t := range c.grace {
		if first == nil || t.Before(until) {
			first, until = conn, t
		}
	}
	return first, until
}

// renew starts the grace of conn anew, unless it has been cut already.
func (c *conns) renew(conn net.Conn, grace time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.grace[conn]; ok {
		c.grace[conn] = time.Now().Add(grace)
	}
}
