package rules_test

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tproxyd/tproxyd/internal/lab"
	"github.com/tproxyd/tproxyd/internal/netnstest"
	"github.com/tproxyd/tproxyd/internal/rules"
)

func TestMain(m *testing.M) { netnstest.Main(m) }

// limit is how long anything may take that has to happen.
const limit = 5 * time.Second

// silence is how long nothing has to happen.
const silence = 300 * time.Millisecond

func apply(t *testing.T, p rules.Plan) {
	t.Helper()
	if err := rules.Apply(p); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := rules.Remove(p); err != nil {
			t.Error(err)
		}
	})
}

// setTransparent makes a socket of the proxy transparent, before its bind.
func setTransparent(network, _ string, c syscall.RawConn) error {
	var err error
	ctrl := c.Control(func(fd uintptr) {
		if strings.HasSuffix(network, "6") {
			err = unix.SetsockoptInt(int(fd), unix.SOL_IPV6, unix.IPV6_TRANSPARENT, 1)
		} else {
			err = unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_TRANSPARENT, 1)
		}
	})
	if ctrl != nil {
		return ctrl
	}
	return err
}

// serve answers every connection with name and both its addresses, as the
// listening side sees them.
func serve(t *testing.T, h *lab.Host, name, network, address string, transparent bool) {
	t.Helper()
	var lc net.ListenConfig
	if transparent {
		lc.Control = setTransparent
	}
	ln, err := h.ListenConfig(t.Context(), lc, network, address)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(c, name+" "+c.RemoteAddr().String()+" "+c.LocalAddr().String())
			_ = c.Close()
		}
	}()
	t.Cleanup(func() {
		_ = ln.Close()
		<-done
	})
}

func ask(ctx context.Context, h *lab.Host, address string) (answer, local string, err error) {
	c, err := h.Dial(ctx, "tcp", address)
	if err != nil {
		return "", "", err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(limit)); err != nil {
		return "", "", err
	}
	b, err := io.ReadAll(c)
	return string(b), c.LocalAddr().String(), err
}

// wantAnswer asks and expects the answer of name, which has to see the true
// address of the client and be taken for the address that was asked.
func wantAnswer(t *testing.T, from *lab.Host, address, name string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	got, local, err := ask(ctx, from, address)
	if want := name + " " + local + " " + address; got != want || err != nil {
		t.Errorf("%s asked by the %s: answer %q, %v, want %q", address, from.Name, got, err, want)
	}
}

func wantSilence(t *testing.T, from *lab.Host, address string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), silence)
	defer cancel()
	got, _, err := ask(ctx, from, address)
	if ne, ok := errors.AsType[net.Error](err); !ok || !ne.Timeout() {
		t.Errorf("%s asked by the %s: answer %q, %v, want silence", address, from.Name, got, err)
	}
}
