package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/tproxyd/tproxyd/config"
	"golang.org/x/sys/unix"
)

const (
	clientTimeout = 2 * time.Second
	maxAnswer     = 64 << 20
)

// clientFlags say which daemon a command talks to.
type clientFlags struct {
	config, socket, address string
	timeout                 time.Duration
}

func addClientFlags(fs *flag.FlagSet) *clientFlags {
	f := &clientFlags{}
	fs.StringVar(&f.config, "config", defaultConfig, "configuration `file` of the daemon, which says where it listens")
	fs.StringVar(&f.socket, "socket", "", "`path` of the daemon's unix socket, instead of the configured ones")
	fs.StringVar(&f.address, "address", "", "the daemon's admin address, `host:port`, instead of the configured ones")
	fs.DurationVar(&f.timeout, "timeout", clientTimeout, "give up after this time")
	return f
}

// endpoint is a place where the daemon may be reached.
type endpoint struct{ network, address string }

// String implements fmt.Stringer.
func (e endpoint) String() string {
	if e.network == "unix" {
		return "socket " + e.address
	}
	return "address " + e.address
}

// endpoints are where to try, in that order.
func (f *clientFlags) endpoints() ([]endpoint, error) {
	var places []endpoint
	if f.socket != "" {
		places = append(places, endpoint{"unix", f.socket})
	}
	if f.address != "" {
		if _, _, err := net.SplitHostPort(f.address); err != nil {
			return nil, usageError{fmt.Errorf("--address %q: want host:port", f.address)}
		}
		places = append(places, endpoint{"tcp", f.address})
	}
	if len(places) > 0 {
		return places, nil
	}
	c, err := config.Load(f.config)
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%v; give the file that the daemon runs with as --config, or where it listens as --socket or --address", err) //nolint:errorlint // the hint for EACCES is one for the daemon
	}
	if err != nil {
		return nil, err
	}
	places = adminSettingsOf(c).endpoints()
	if len(places) == 0 {
		return nil, fmt.Errorf("%s: the admin server is switched off there; set admin.socket or admin.listen and restart", f.config)
	}
	return places, nil
}

// endpoints are those of a daemon with the settings.
func (s adminSettings) endpoints() []endpoint {
	var places []endpoint
	if s.socket != "" {
		places = append(places, endpoint{"unix", s.socket})
	}
	if s.listen.IsValid() {
		addr := s.listen
		switch {
		case addr.Addr() == netip.IPv4Unspecified():
			addr = netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), addr.Port())
		case addr.Addr().IsUnspecified():
			addr = netip.AddrPortFrom(netip.IPv6Loopback(), addr.Port())
		}
		places = append(places, endpoint{"tcp", addr.String()})
	}
	return places
}

// client talks to one daemon.
type client struct {
	places  []endpoint
	timeout time.Duration
}

func (f *clientFlags) client() (*client, error) {
	if f.timeout <= 0 {
		return nil, usageError{fmt.Errorf("--timeout %v: want more than 0s", f.timeout)}
	}
	places, err := f.endpoints()
	if err != nil {
		return nil, err
	}
	return &client{places: places, timeout: f.timeout}, nil
}

// get returns what the daemon answers, as it is.
func (c *client) get(ctx context.Context, path string, query url.Values) ([]byte, error) {
	if len(query) > 0 {
		path += "?" + query.Encode()
	}
	return c.do(ctx, http.MethodGet, path, nil)
}

// show asks for path. With asJSON it prints the answer as it is and reports that;
// else the answer is in v.
func (f *clientFlags) show(ctx context.Context, e env, asJSON bool, path string, query url.Values, v any) (shown bool, err error) {
	c, err := f.client()
	if err != nil {
		return false, err
	}
	body, err := c.get(ctx, path, query)
	if err == nil {
		err = decodeAnswer(body, v)
	}
	if err != nil || !asJSON {
		return false, err
	}
	_, err = e.stdout.Write(body)
	return true, err
}

func decodeAnswer(body []byte, v any) error {
	if err := json.Unmarshal(body, v); err != nil {
		return fmt.Errorf("the answer is not one of tproxyd: %w", err)
	}
	return nil
}

// do makes one request. All of it, at all places, takes no longer than timeout.
func (c *client) do(ctx context.Context, method, path string, body []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	conn, err := c.connect(ctx)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	resp, err := request(ctx, conn, method, path, body)
	if err != nil {
		return nil, c.answerError(ctx, err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return nil, c.answerError(ctx, err)
	}
	if resp.StatusCode >= http.StatusBadRequest {
		return nil, refusedBy(resp, answer)
	}
	return answer, nil
}

// stream copies an answer that may go on for ever to w; only connecting has a
// time-out. What fails in w is returned as it is.
func (c *client) stream(ctx context.Context, path string, query url.Values, w io.Writer) error {
	dialing, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	conn, err := c.connect(dialing)
	if err != nil {
		return err
	}
	defer conn.Close()
	resp, err := request(ctx, conn, http.MethodGet, path+"?"+query.Encode(), nil)
	if err != nil {
		return fmt.Errorf("ask the daemon: %v", err) //nolint:errorlint // see whyNot
	}
	defer resp.Body.Close()
	if resp.StatusCode >= http.StatusBadRequest {
		answer, _ := io.ReadAll(io.LimitReader(resp.Body, maxAnswer)) // what there is of it says why
		return refusedBy(resp, answer)
	}
	out := &lastError{Writer: w}
	if _, err := io.Copy(out, resp.Body); out.err == nil && err != nil {
		return fmt.Errorf("the daemon ended the stream in the middle: %v", err) //nolint:errorlint // see whyNot
	}
	return out.err
}

// lastError remembers whether it was the writer that failed.
type lastError struct {
	io.Writer
	err error
}

// Write implements io.Writer.
func (l *lastError) Write(b []byte) (int, error) {
	n, err := l.Writer.Write(b)
	l.err = err
	return n, err
}

// request makes one request over conn.
func request(ctx context.Context, conn net.Conn, method, path string, body []byte) (*http.Response, error) {
	transport := &http.Transport{
		Proxy:             nil, // none of the environment: the daemon is near
		DisableKeepAlives: true,
		DialContext:       func(context.Context, string, string) (net.Conn, error) { return conn, nil },
	}
	host := "localhost"
	if conn.RemoteAddr().Network() == "tcp" {
		host = conn.RemoteAddr().String()
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://"+host+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	return transport.RoundTrip(req)
}

// connect tries one place after the other.
func (c *client) connect(ctx context.Context) (net.Conn, error) {
	var failures []string
	for _, p := range c.places {
		var d net.Dialer
		conn, err := d.DialContext(ctx, p.network, p.address)
		if err == nil {
			return conn, nil
		}
		failures = append(failures, fmt.Sprintf("%s: %s", p, whyNot(p, err)))
	}
	return nil, errors.New("cannot reach the daemon: " + strings.Join(failures, "; "))
}

// whyNot says what an error of connecting comes from, for a person. Its errno
// stays in here: the hints of main are about starting the daemon.
func whyNot(p endpoint, err error) string {
	var timeout net.Error
	switch {
	case errors.Is(err, unix.ENOENT):
		return "there is no such file: is the daemon running, and with that admin.socket? See systemctl status tproxyd"
	case errors.Is(err, unix.EACCES):
		return "permission denied: be root, or of the group that may use it (ls -l shows; admin.socket_mode)"
	case errors.Is(err, unix.ECONNREFUSED):
		return "connection refused: is the daemon running? See systemctl status tproxyd"
	case errors.As(err, &timeout) && timeout.Timeout():
		return "no answer in time"
	}
	if op, ok := errors.AsType[*net.OpError](err); ok {
		return op.Err.Error()
	}
	return fmt.Sprintf("%s: %v", p.network, err)
}

func (c *client) answerError(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("the daemon is there, but has not answered within %v", c.timeout)
	}
	return fmt.Errorf("ask the daemon: %v", err) //nolint:errorlint // see whyNot
}

// refusedBy is the error that the daemon answered with.
func refusedBy(resp *http.Response, body []byte) error {
	var answer struct{ Error string }
	if err := json.Unmarshal(body, &answer); err != nil || answer.Error == "" {
		return fmt.Errorf("the daemon answered %s", resp.Status)
	}
	return errors.New(clean(answer.Error))
}
