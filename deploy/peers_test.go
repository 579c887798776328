package deploy_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tproxyd/tproxyd/internal/lab"
)

const (
	// patience is how long anything may take that has to happen.
	patience = 10 * time.Second
	// impatience is how long a connection is tried that must not come about.
	impatience = 700 * time.Millisecond
	// ownMark is the mark of the daemon's own packets.
	ownMark = 0x7470
)

// tcpServer accepts on some listeners and serves each connection on a
// goroutine of its own, until the end of the test or close.
type tcpServer struct {
	listeners []net.Listener
	accepted  atomic.Int64
	wg        sync.WaitGroup
	once      sync.Once
}

func startServer(t *testing.T, serve func(*net.TCPConn), listeners ...net.Listener) *tcpServer {
	t.Helper()
	s := &tcpServer{listeners: listeners}
	for _, ln := range listeners {
		s.wg.Go(func() { s.accept(ln, serve) })
	}
	t.Cleanup(s.close)
	return s
}

func (s *tcpServer) accept(ln net.Listener, serve func(*net.TCPConn)) {
	for {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		s.accepted.Add(1)
		s.wg.Go(func() {
			defer c.Close()
			_ = c.SetDeadline(time.Now().Add(patience))
			serve(c.(*net.TCPConn))
		})
	}
}

func (s *tcpServer) close() {
	s.once.Do(func() {
		for _, ln := range s.listeners {
			ln.Close()
		}
		s.wg.Wait()
	})
}

// tellPeer writes who the peer is, and then echoes.
func tellPeer(c *net.TCPConn) {
	fmt.Fprintln(c, c.RemoteAddr().(*net.TCPAddr).IP)
	_ = plainCopy(c, c)
}

// plainCopy hides what the two are from io.Copy, which would splice and leave
// pipes open for a next time.
func plainCopy(dst io.Writer, src io.Reader) error {
	_, err := io.Copy(struct{ io.Writer }{dst}, struct{ io.Reader }{src})
	return err
}

// startBackend runs tellPeer in a host of the lab.
func startBackend(t *testing.T, host *lab.Host, addresses ...string) *tcpServer {
	t.Helper()
	return startServer(t, tellPeer, listen(t, host, net.ListenConfig{}, addresses...)...)
}

func listen(t *testing.T, host *lab.Host, lc net.ListenConfig, addresses ...string) []net.Listener {
	t.Helper()
	var lns []net.Listener
	for _, address := range addresses {
		// "tcp" would take [::] for both families.
		network := "tcp4"
		if strings.HasPrefix(address, "[") {
			network = "tcp6"
		}
		ln, err := host.ListenConfig(t.Context(), lc, network, address)
		if err != nil {
			t.Fatalf("listen on %s in the %s: %v", address, host.Name, err)
		}
		t.Cleanup(func() { ln.Close() })
		lns = append(lns, ln)
	}
	return lns
}

// proxyConfig is what the smallest transparent proxy needs to know.
type proxyConfig struct {
	listen []string
	// backend gets the connection; the original destination if nil.
	backend func(destination *net.TCPAddr) string
	// sourceHost connects with the proxy's own address, not the client's.
	sourceHost bool
}

// startProxy runs a transparent proxy in the proxy's host: sockets with
// IP_TRANSPARENT, and nothing else that the rules could lean on.
func startProxy(t *testing.T, l *lab.Lab, cfg proxyConfig) *tcpServer {
	t.Helper()
	lns := listen(t, l.Proxy, net.ListenConfig{Control: transparent}, cfg.listen...)
	return startServer(t, func(c *net.TCPConn) {
		if err := cfg.relay(l.Proxy, c); err != nil && !errors.Is(err, unix.ECONNRESET) {
			t.Errorf("test proxy: %v", err)
		}
	}, lns...)
}

func (cfg proxyConfig) relay(host *lab.Host, client *net.TCPConn) error {
	destination := client.LocalAddr().(*net.TCPAddr)
	target := destination.String()
	if cfg.backend != nil {
		target = cfg.backend(destination)
	}
	d := net.Dialer{Control: transparent, Timeout: patience}
	if !cfg.sourceHost {
		d.LocalAddr = &net.TCPAddr{IP: client.RemoteAddr().(*net.TCPAddr).IP}
	}
	up, err := host.DialConfig(context.Background(), d, "tcp", target)
	if err != nil {
		return err
	}
	defer up.Close()
	_ = up.SetDeadline(time.Now().Add(patience))

	back := make(chan error, 1)
	go func() {
		back <- errors.Join(plainCopy(client, up), client.CloseWrite())
	}()
	err = plainCopy(up, client)
	_ = up.(*net.TCPConn).CloseWrite()
	return errors.Join(err, <-back)
}

// transparent sets what the daemon's sockets have: its own mark, and leave to
// use addresses of others.
func transparent(network, _ string, c syscall.RawConn) error {
	level, option, name := unix.SOL_IP, unix.IP_TRANSPARENT, "IP_TRANSPARENT"
	if network == "tcp6" {
		level, option, name = unix.SOL_IPV6, unix.IPV6_TRANSPARENT, "IPV6_TRANSPARENT"
	}
	var err error
	ctrl := c.Control(func(fd uintptr) {
		err = os.NewSyscallError("setsockopt("+name+")", unix.SetsockoptInt(int(fd), level, option, 1))
		if err == nil {
			err = os.NewSyscallError("setsockopt(SO_MARK)",
				unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK, ownMark))
		}
	})
	return errors.Join(ctrl, err)
}

// exchange connects from a host to a target that runs tellPeer, maybe behind a
// proxy, and returns the address that it told.
func exchange(ctx context.Context, from *lab.Host, local, target string) (peer string, err error) {
	c, err := from.DialFrom(ctx, "tcp", local, target)
	if err != nil {
		return "", err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return "", err
	}
	r := bufio.NewReader(c)
	if _, err := fmt.Fprint(c, "and back\n"); err != nil {
		return "", err
	}
	told, err := r.ReadString('\n')
	if err != nil {
		return "", fmt.Errorf("read peer: %w", err)
	}
	echo, err := r.ReadString('\n')
	if err != nil || echo != "and back\n" {
		return "", fmt.Errorf("read echo: got %q: %w", echo, err)
	}
	if got := c.RemoteAddr().String(); got != target {
		return "", fmt.Errorf("connected to %s, not %s", got, target)
	}
	return told[:len(told)-1], nil
}

// reaches fails the test unless target answers and saw the source want.
func reaches(t *testing.T, from *lab.Host, local, target, want string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	got, err := exchange(ctx, from, local, target)
	if err != nil {
		t.Fatalf("connect from the %s to %s: %v", from.Name, target, err)
	}
	if got != want {
		t.Errorf("%s saw a connection from %s, want %s", target, got, want)
	}
}

// silent fails the test unless target gives no answer at all, not even a
// refusal.
func silent(t *testing.T, from *lab.Host, local, target string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), impatience)
	defer cancel()
	_, err := exchange(ctx, from, local, target)
	if !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("connect from the %s to %s: got %v, want no answer", from.Name, target, err)
	}
}
