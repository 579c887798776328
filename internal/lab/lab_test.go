package lab_test

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/tproxyd/tproxyd/internal/lab"
	"github.com/tproxyd/tproxyd/internal/netnstest"
)

// sayWho answers every connection with the address that it comes from.
func sayWho(t *testing.T, h *lab.Host, address string) {
	t.Helper()
	ln, err := h.Listen("tcp", address)
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
			_, _ = io.WriteString(c, c.RemoteAddr().String())
			_ = c.Close()
		}
	}()
	t.Cleanup(func() {
		_ = ln.Close()
		<-done
	})
}

func ask(ctx context.Context, h *lab.Host, local, remote string) (string, error) {
	c, err := h.DialFrom(ctx, "tcp", local, remote)
	if err != nil {
		return "", err
	}
	defer c.Close()
	b, err := io.ReadAll(c)
	return string(b), err
}

func TestTopology(t *testing.T) {
	l := netnstest.New(t)
	for _, server := range []string{
		lab.ServerIP4, lab.Server2IP4, lab.ForeignIP4,
		lab.ServerIP6, lab.Server2IP6, lab.ForeignIP6,
	} {
		sayWho(t, l.Server, net.JoinHostPort(server, "80"))
		locals := []string{lab.ClientIP4, "198.18.16.1", "198.18.31.254"}
		if strings.Contains(server, ":") {
			locals = []string{lab.ClientIP6, "2001:db8:16::1", "2001:db8:16::ffff:1"}
		}
		for _, local := range locals {
			from := net.JoinHostPort(local, "4000")
			got, err := ask(t.Context(), l.Client, from, net.JoinHostPort(server, "80"))
			if got != from || err != nil {
				t.Errorf("%s to %s: server saw %q, %v", from, server, got, err)
			}
		}
	}
}

// TestAgain makes sure that a lab leaves nothing in the way of the next one.
func TestAgain(t *testing.T) {
	for range 2 {
		l, err := lab.New(lab.Config{MTU: 1400})
		if err != nil {
			t.Fatal(err)
		}
		nl, err := l.Proxy.Netlink()
		if err != nil {
			t.Fatal(err)
		}
		link, err := nl.LinkByName(lab.ServerLink)
		if err != nil || link.Attrs().MTU != 1400 {
			t.Errorf("server link: %v, %v, want MTU 1400", link, err)
		}
		rule := netlink.NewRule()
		rule.Mark, rule.Table = 7, 77
		lo, err := nl.LinkByName("lo")
		if err != nil {
			t.Fatal(err)
		}
		_, all, _ := net.ParseCIDR("0.0.0.0/0")
		route := &netlink.Route{Table: 77, LinkIndex: lo.Attrs().Index, Dst: all, Type: unix.RTN_LOCAL, Scope: netlink.SCOPE_HOST}
		if err := errors.Join(nl.RuleAdd(rule), nl.RouteAdd(route)); err != nil {
			t.Errorf("a lab is not fresh: %v", err)
		}
		if _, err := l.CutServer(); err != nil {
			t.Error(err)
		}
		nl.Close()
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestCut(t *testing.T) {
	l := netnstest.New(t)
	cuts := map[string]func() (func() error, error){"client": l.CutClient, "server": l.CutServer}
	for _, server := range []string{lab.ServerIP4, lab.ServerIP6} {
		address := net.JoinHostPort(server, "80")
		sayWho(t, l.Server, address)
		for name, cut := range cuts {
			restore, err := cut()
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
			_, err = ask(ctx, l.Client, "", address)
			cancel()
			if ne, ok := errors.AsType[net.Error](err); !ok || !ne.Timeout() {
				t.Errorf("%s cut: dial %s: %v, want silence", name, address, err)
			}
			if err := restore(); err != nil {
				t.Fatal(err)
			}
			if _, err = ask(t.Context(), l.Client, "", address); err != nil {
				t.Errorf("%s restored: dial %s: %v", name, address, err)
			}
		}
	}
}

func TestCommand(t *testing.T) {
	l := netnstest.New(t)
	want, err := os.Readlink(l.Client.NetNSPath())
	if err != nil {
		t.Fatal(err)
	}
	out, err := l.Client.Command(t.Context(), "readlink", "/proc/self/ns/net").Output()
	if got := strings.TrimSpace(string(out)); got != want || err != nil {
		t.Errorf("command ran in %q, %v, want %q", got, err, want)
	}
	_, err = l.Client.Command(t.Context(), "sh", "-c", "echo broken >&2; exit 4").Output()
	if err == nil || !strings.Contains(err.Error(), "exit status 4: broken") {
		t.Errorf("error %v does not tell the status and what was printed", err)
	}
	if err := l.Client.Command(t.Context(), "/nowhere").Run(); err == nil {
		t.Error("a program that does not exist ran")
	}

	ctx, cancel := context.WithCancel(t.Context())
	sleep := l.Server.Command(ctx, "sleep", "100")
	if err := sleep.Start(); err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := sleep.Wait(); err == nil {
		t.Error("a cancelled program ended well")
	}
}

func TestDo(t *testing.T) {
	l := netnstest.New(t)
	here, _ := os.Readlink("/proc/thread-self/ns/net")
	var there string
	if err := l.Server.Do(func() (err error) {
		there, err = os.Readlink("/proc/thread-self/ns/net")
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if want, _ := os.Readlink(l.Server.NetNSPath()); there != want || there == here {
		t.Errorf("Do ran in %s, want %s, from %s", there, want, here)
	}
	if want := errors.New("mine"); !errors.Is(l.Server.Do(func() error { return want }), want) {
		t.Error("Do lost the error")
	}
	if err := l.Server.Sysctl("ipv4.nothing_of_this_name", "1"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Sysctl = %v, want not exist", err)
	}
}

func TestListenPacketAndLinks(t *testing.T) {
	l := netnstest.New(t)
	pc, err := l.Server.ListenPacket("udp", net.JoinHostPort(lab.ServerIP4, "53"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = pc.Close() }()
	c, err := l.Client.DialFrom(t.Context(), "udp", lab.ClientIP4+":5353", pc.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if err := pc.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, from, err := pc.ReadFrom(make([]byte, 8)); err != nil || from.String() != lab.ClientIP4+":5353" {
		t.Errorf("datagram from %v, %v", from, err)
	}

	if err := l.Client.LinkDown(lab.EndLink); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Client.Dial(t.Context(), "tcp", lab.ServerIP4+":80"); !errors.Is(err, unix.ENETUNREACH) {
		t.Errorf("dial over a link that is down: %v, want ENETUNREACH", err)
	}
	if err := l.Client.LinkUp(lab.EndLink); err != nil {
		t.Fatal(err)
	}
	if err := l.Client.LinkUp("nolink"); err == nil {
		t.Error("a link that does not exist went up")
	}
}
