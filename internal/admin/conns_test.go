package admin_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tproxyd/tproxyd/internal/admin"
)

// patience bounds every wait; reaching it is a failure.
const patience = 20 * time.Second

// dial opens a connection that is closed at the end of the test, and sends.
func dial(t *testing.T, addr, send string) net.Conn {
	t.Helper()
	var d net.Dialer
	c, err := d.DialContext(t.Context(), "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(c, send); err != nil {
		t.Fatal(err)
	}
	return c
}

// waitCut reads until the other side has closed the connection.
func waitCut(t *testing.T, c net.Conn) {
	t.Helper()
	if _, err := io.Copy(io.Discard, c); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("connection from %s still open after %v", c.LocalAddr(), patience)
	}
}

// 500 clients that never finish their header do not keep a scraper out, and
// not more than the limit stay.
func TestSlowHeaders(t *testing.T) {
	const clients, limit = 500, 64
	reg := prometheus.NewRegistry()
	reg.MustRegister(admin.NewBuildInfo("test"))
	addr := serve(t, admin.Config{
		Gatherer:       reg,
		MaxConns:       limit,
		RequestTimeout: time.Hour, // what cuts here is the limit
	})
	scraped := make(chan error)
	go func() { scraped <- scrapes("http://"+addr+"/metrics", 20) }()
	slow := make([]net.Conn, clients)
	for i := range slow {
		slow[i] = dial(t, addr, "GET /metrics HTTP/1.1\r\nHost: a\r\nX-Slow: ")
	}
	if err := <-scraped; err != nil {
		t.Errorf("scrape among slow clients: %v", err)
	}
	// Those that came first went first.
	for _, c := range slow[:clients-limit] {
		waitCut(t, c)
	}
	// The last one is still served.
	last := slow[clients-1]
	if _, err := io.WriteString(last, "done\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(last), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := resp.Body.Close(); err != nil || resp.StatusCode != 200 {
		t.Errorf("last slow client: %s, %v", resp.Status, err)
	}
}

// scrapes makes n scrapes, one after the other.
func scrapes(url string, n int) error {
	for i := range n {
		resp, body, err := tryGet(url)
		if err != nil {
			return fmt.Errorf("scrape %d: %w", i, err)
		}
		if resp.StatusCode != http.StatusOK || !strings.Contains(body, "tproxyd_build_info{") {
			return fmt.Errorf("scrape %d: %s: %s", i, resp.Status, body)
		}
	}
	return nil
}

// Clients that do not take a large answer hold a connection each, in the
// middle of a handler, and give way too.
func TestSlowReaders(t *testing.T) {
	reg := prometheus.NewRegistry()
	big := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "big", Help: strings.Repeat("x", 1000)}, []string{"l"})
	for i := range 2000 {
		big.WithLabelValues(fmt.Sprint(i, strings.Repeat("y", 10_000))).Set(1)
	}
	reg.MustRegister(big)
	const limit = 2
	addr := serve(t, admin.Config{Gatherer: reg, MaxConns: limit, RequestTimeout: time.Hour})
	var slow []net.Conn
	for range 3 * limit {
		c := dial(t, addr, "GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n")
		// The answer begins: the handler runs, and blocks in its write.
		if _, err := io.ReadFull(c, make([]byte, 16)); err != nil {
			t.Fatal(err)
		}
		slow = append(slow, c)
	}
	if resp, _ := get(t, "http://"+addr+"/healthz"); resp.StatusCode != 200 {
		t.Errorf("scrape among slow readers: %s", resp.Status)
	}
	for _, c := range slow[:2*limit] {
		waitCut(t, c)
	}
}

// Whatever a client leaves out, the time-out ends it.
func TestTimeouts(t *testing.T) {
	addr := serve(t, admin.Config{RequestTimeout: 50 * time.Millisecond})
	for name, send := range map[string]string{
		"silence":       "",
		"half a header": "GET / HTTP/1.1\r\nHost: a\r\nX: ",
		"no body":       "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n",
		"no chunk":      "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
		"huge body":     "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) { waitCut(t, dial(t, addr, send)) })
	}
}

func TestHugeHeader(t *testing.T) {
	addr := serve(t, admin.Config{})
	c := dial(t, addr, "GET / HTTP/1.1\r\nHost: a\r\nX: "+strings.Repeat("x", 20<<10))
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := resp.Body.Close(); err != nil || resp.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("%s, %v, want 431", resp.Status, err)
	}
}
