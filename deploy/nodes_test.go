package deploy_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/tproxyd/tproxyd/internal/lab"
	"github.com/tproxyd/tproxyd/internal/netnstest"
)

// checkCommand is what the files under keepalived/ and bird/ ask a node with.
const checkCommand = "/usr/sbin/tproxyd status --check"

// builtCheck is checkCommand of the daemon that the tests run. keepalived runs no
// program below a directory that others may write to, such as /tmp, but env does.
func builtCheck(t *testing.T) string {
	t.Helper()
	return "/usr/bin/env " + daemon(t) + " status --check --address " + adminAddress
}

// settling is how long routing protocols may take.
const settling = 60 * time.Second

func newNetwork(t *testing.T) *lab.Network {
	t.Helper()
	netnstest.Need(t, "curl", "curl")
	netnstest.Need(t, "nft", "nftables")
	netnstest.Need(t, "ip", "iproute2")
	n, err := lab.NewNetwork()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	return n
}

func addHost(t *testing.T, n *lab.Network, name string) *lab.Host {
	t.Helper()
	h, err := n.Host(name)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func must(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// A program runs in a host until the end of the test, or is killed before.
type program struct {
	t   *testing.T
	cmd *lab.Cmd
	out bytes.Buffer
}

func startProgram(t *testing.T, h *lab.Host, env []string, name string, args ...string) *program {
	t.Helper()
	p := &program{t: t, cmd: h.Command(context.Background(), name, args...)}
	p.cmd.Env = append(os.Environ(), env...)
	p.cmd.Stdout, p.cmd.Stderr = &p.out, &p.out
	p.cmd.WaitDelay = patience
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if p.cmd.ProcessState != nil {
			return
		}
		_ = p.cmd.Process.Signal(unix.SIGTERM)
		if err := p.cmd.Wait(); err != nil {
			t.Errorf("%s: %v", p.cmd, err)
		}
		if t.Failed() {
			t.Logf("%s on %s:\n%s", filepath.Base(name), h.Name, &p.out)
		}
	})
	return p
}

// kill ends the program as a crash does.
func (p *program) kill() {
	p.t.Helper()
	if err := p.cmd.Process.Kill(); err != nil {
		p.t.Fatal(err)
	}
	if err := p.cmd.Wait(); err == nil {
		p.t.Error("a killed program ended well")
	}
}

// A node is one of several hosts that run the daemon behind the rules of this
// directory.
type node struct {
	*lab.Host
	config string
	daemon *program
}

func startNode(t *testing.T, h *lab.Host, config string, vip4, vip6 string) *node {
	t.Helper()
	l := &lab.Lab{Proxy: h}
	run(t, l, nil, "sh", "policy-routing.sh", "up")
	run(t, l, nil, "nft", "-f", edited(t, "nft/tproxyd-vip.nft", "vip4 = { "+vip4+" }", "vip6 = { "+vip6+" }"))
	n := &node{Host: h, config: filepath.Join(t.TempDir(), "tproxyd.toml")}
	if err := os.WriteFile(n.config, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	n.start(t)
	return n
}

func (n *node) start(t *testing.T) {
	t.Helper()
	n.daemon = startProgram(t, n.Host, nil, daemon(t), "run", "--config", n.config)
	netnstest.Eventually(t, patience, func() bool {
		_, err := fetch(&lab.Lab{Proxy: n.Host}, "/readyz")
		return err == nil
	}, "the daemon is ready")
}

// owns says whether an interface of the host has the address.
func owns(t *testing.T, h *lab.Host, address string) bool {
	t.Helper()
	nl, err := h.Netlink()
	if err != nil {
		t.Fatal(err)
	}
	defer nl.Close()
	addrs, err := nl.AddrList(nil, netlink.FAMILY_ALL)
	if err != nil {
		t.Fatal(err)
	}
	return slices.ContainsFunc(addrs, func(a netlink.Addr) bool { return a.IP.Equal(net.ParseIP(address)) })
}

// startNamed runs a server that tells who the peer is and which of the
// addresses answers, and then echoes.
func startNamed(t *testing.T, h *lab.Host, addresses ...string) {
	t.Helper()
	startServer(t, func(c *net.TCPConn) {
		fmt.Fprintln(c, c.RemoteAddr().(*net.TCPAddr).IP, c.LocalAddr())
		_ = plainCopy(c, c)
	}, listen(t, h, net.ListenConfig{}, addresses...)...)
}

// attempt is one connection to a startNamed, which is given up soon.
func attempt(t *testing.T, from *lab.Host, local, target string) (peer, backend string, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), impatience)
	defer cancel()
	told, err := exchange(ctx, from, net.JoinHostPort(local, "0"), target)
	peer, backend, _ = strings.Cut(told, " ")
	return peer, backend, err
}

// served waits until a connection is answered.
func served(t *testing.T, from *lab.Host, local, target string) (peer, backend string) {
	t.Helper()
	var last error
	deadline := time.Now().Add(settling)
	for time.Now().Before(deadline) {
		if peer, backend, last = attempt(t, from, local, target); last == nil {
			return peer, backend
		}
	}
	t.Fatalf("%s to %s: %v", local, target, last)
	return "", ""
}

// replaced copies a file with one text replaced by another.
func replaced(t *testing.T, file, old, text string) string {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if n := bytes.Count(b, []byte(old)); n != 1 {
		t.Fatalf("%s has %q %d times, want once", file, old, n)
	}
	path := filepath.Join(t.TempDir(), filepath.Base(file))
	if err := os.WriteFile(path, bytes.Replace(b, []byte(old), []byte(text), 1), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
