package admin

import (
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"
)

// fakeConn only remembers that it was closed.
type fakeConn struct {
	net.Conn
	closed bool
}

func (c *fakeConn) Close() error {
	c.closed = true
	return nil
}

func TestConns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newConns(3)
		open := func() *fakeConn {
			conn := new(fakeConn)
			c.stateChanged(conn, http.StateNew)
			return conn
		}
		begin := time.Now()
		passed := func(want time.Duration, what string) {
			t.Helper()
			if got := time.Since(begin); got != want {
				t.Errorf("%s at %v, want %v", what, got, want)
			}
		}
		slow, scraper, done := open(), open(), open()
		passed(0, "three connections are in")

		// One that closes makes room at once.
		c.stateChanged(done, http.StateActive)
		c.stateChanged(done, http.StateClosed)
		idle := open()
		c.stateChanged(idle, http.StateActive)
		c.stateChanged(idle, http.StateIdle)
		passed(0, "a fourth")

		// The scraper makes progress, then a connection too many comes: it
		// waits for the grace of the slow one, and only that is cut.
		time.Sleep(headerGrace / 2) //nolint:forbidigo // the clock of synctest
		c.stateChanged(scraper, http.StateActive)
		c.stateChanged(idle, http.StateActive)
		c.stateChanged(idle, http.StateIdle)
		fifth := open()
		passed(headerGrace, "a fifth")
		if !slow.closed || scraper.closed || idle.closed || done.closed {
			t.Error("want the slow connection cut and no other")
		}

		// What net/http says of it afterwards changes nothing.
		c.stateChanged(slow, http.StateActive)
		c.stateChanged(slow, http.StateClosed)
		if len(c.grace) != 3 {
			t.Errorf("%d connections counted, want 3", len(c.grace))
		}

		// Next is the idle one, then the fifth; the scraper is still served.
		open()
		passed(headerGrace*3/2, "a sixth")
		open()
		passed(headerGrace*2, "a seventh")
		if !idle.closed || !fifth.closed || scraper.closed {
			t.Error("want the idle and the fifth connection cut and not the scraper")
		}

		// A scraper that does not take its answer goes in the end as well.
		time.Sleep(answerGrace) //nolint:forbidigo // the clock of synctest
		for range 3 {
			open()
		}
		if !scraper.closed || len(c.grace) != 3 {
			t.Errorf("scraper cut: %v, %d connections counted", scraper.closed, len(c.grace))
		}
	})
}

// A request that was refused does not keep the grace of one that is served,
// although net/http goes on waiting for its body.
func TestAnswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newConns(1)
		conn := new(fakeConn)
		c.stateChanged(conn, http.StateNew)
		c.stateChanged(conn, http.StateActive)
		refuse := c.answered(http.NotFoundHandler())
		refuse.ServeHTTP(httptest.NewRecorder(), httptest.NewRequestWithContext(
			withConn(t.Context(), conn), http.MethodGet, "/", nil))
		begin := time.Now()
		c.stateChanged(new(fakeConn), http.StateNew)
		if got := time.Since(begin); got != headerGrace || !conn.closed {
			t.Errorf("next connection came in after %v, want %v", got, headerGrace)
		}
	})
}
