package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/tproxyd/tproxyd/internal/lab"
	"golang.org/x/sys/unix"
)

const (
	withoutNetRaw   = 1<<unix.CAP_NET_RAW | 1<<unix.CAP_NET_ADMIN
	withoutBind     = 1 << unix.CAP_NET_BIND_SERVICE
	withoutOverride = 1<<unix.CAP_DAC_OVERRIDE | 1<<unix.CAP_DAC_READ_SEARCH
)

// wantRefused starts a daemon that has to end by itself, with an exit code and
// one line of explanation that holds all of want.
func (b *bed) wantRefused(config string, o options, code int, want ...string) {
	b.t.Helper()
	d := b.launch(config, o)
	d.wantRefused(code, want...)
}

func (d *process) wantRefused(code int, want ...string) {
	d.t.Helper()
	got, line := d.exit(), d.stderr.String()
	if got != code || d.stdout.String() != "" || strings.Count(line, "\n") != 1 {
		d.t.Fatalf("exit code %d, stdout %q, stderr %q, want exit code %d and one line", got, &d.stdout, line, code)
	}
	if code == exitFailed && !strings.HasPrefix(line, "tproxyd: ") || code == exitUsage && !strings.HasPrefix(line, d.config+":") {
		d.t.Errorf("the line %q does not say whose it is", line)
	}
	for _, w := range want {
		if !strings.Contains(line, w) {
			d.t.Errorf("the line %q does not say %q", line, w)
		}
	}
}

// service returns a configuration with one service.
func service(mode, listen, backend string) string {
	text := fmt.Sprintf("[[service]]\nname = %q\nmode = %q\nlisten = [%q]\nsource = \"host\"\n", mode, mode, listen)
	if backend != "" {
		text += fmt.Sprintf("[[service.backend]]\naddress = %q\n", backend)
	}
	return fmt.Sprintf(configHead, "", "") + text
}

func TestMissingCapability(t *testing.T) {
	b := newBed(t)
	both := configuration("", "")
	b.wantRefused(both, options{confinement: confinement{Without: withoutNetRaw}}, exitFailed,
		"setsockopt(IP_TRANSPARENT)", "operation not permitted", "CAP_NET_RAW is missing", "AmbientCapabilities=CAP_NET_RAW", "setcap")
	b.wantRefused(both, options{confinement: confinement{Without: withoutBind}}, exitFailed,
		`service "web"`, lab.VIP4+":80", "bind: permission denied", "CAP_NET_BIND_SERVICE", "AmbientCapabilities=")
	// Neither is needed in vain: without CAP_NET_BIND_SERVICE there are the
	// other ports, and CAP_NET_ADMIN is never asked for.
	b.start(service("intercept", "0.0.0.0:15001", ""), options{confinement: confinement{Without: withoutBind | 1<<unix.CAP_NET_ADMIN}})
}

func TestUnreadableByMode(t *testing.T) {
	b := newBed(t)
	d := &process{t: t, config: write(t, good), ended: make(chan struct{})}
	if err := os.Chmod(d.config, 0); err != nil {
		t.Fatal(err)
	}
	d.run(b, options{confinement: confinement{Without: withoutOverride}})
	d.wantRefused(exitUsage, "cannot read the file: permission denied", "the user that tproxyd runs as")
}

// TestSecondInstance has one that is started twice, and one whose admin address
// alone is taken. The first does not notice.
func TestSecondInstance(t *testing.T) {
	b := newBed(t)
	first := b.start(configuration("", ""), options{})
	held := b.open(targets["vip4"])
	owner := fmt.Sprintf("is held by %s (pid %d)", first.name(), first.cmd.Process.Pid)
	b.wantRefused(configuration("", ""), options{}, exitFailed, "admin", "address already in use: "+adminAddress+" (tcp) "+owner, "ss -lntup")
	for _, listen := range []string{lab.VIP4 + ":80", "[" + lab.VIP6 + "]:80", "0.0.0.0:80", "[::]:80"} {
		text := strings.Replace(service("intercept", listen, ""), adminAddress, "127.0.0.1:9181", 1)
		b.wantRefused(text, options{}, exitFailed, `service "intercept"`, "listen on "+listen, "address already in use: ", ":80 (tcp) "+owner, "ss -lntup")
	}
	for name, target := range targets {
		for range 10 { // with a listener of another instance some of these would go astray
			if err := b.talk(target); err != nil {
				t.Errorf("%s after the second instance: %v", name, err)
			}
		}
	}
	if err := ping(held); err != nil {
		t.Errorf("connection of the first instance: %v", err)
	}
	closeAll(t, held)
	first.idle()
}

// TestPortInUse is about a program that is not tproxyd.
func TestPortInUse(t *testing.T) {
	b := newBed(t)
	b.serve(b.Proxy, lab.ProxyClientIP4+":8081", func(net.Conn) {})
	b.wantRefused(service("vip", lab.ProxyClientIP4+":8081", lab.ServerIP4+":80"), options{}, exitFailed,
		`service "vip": listen on `+lab.ProxyClientIP4+":8081", "bind: address already in use: "+holding("tcp", lab.ProxyClientIP4+":8081"), "another socket has that address")
}

// TestFamilyOff takes IPv6 away by a kernel without it, and by the setting.
func TestFamilyOff(t *testing.T) {
	b := newBed(t)
	both := configuration("", "")
	b.wantRefused(both, options{confinement: confinement{NoIPv6: true}}, exitFailed,
		`service "web": listen on [`+lab.VIP6+"]:80", "address family not supported", "take its addresses out")
	four := fmt.Sprintf(configHead, "", "") + service4
	d := b.start(four, options{confinement: confinement{NoIPv6: true}})
	if err := b.talk(targets["vip4"]); err != nil {
		t.Errorf("IPv4 without IPv6: %v", err)
	}
	d.stop()

	for _, conf := range []string{"all", "default"} {
		if err := b.Proxy.Sysctl("ipv6.conf."+conf+".disable_ipv6", "1"); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := b.Proxy.Sysctl("ipv6.conf."+conf+".disable_ipv6", "0"); err != nil {
				t.Error(err)
			}
		})
	}
	b.wantRefused(both, options{}, exitFailed,
		`service "web": listen on [`+lab.VIP6+"]:80", "IPv6 is switched off", "net.ipv6.conf.all.disable_ipv6")
	b.start(four, options{})
	if err := b.talk(targets["vip4"]); err != nil {
		t.Errorf("IPv4 with IPv6 switched off: %v", err)
	}
}

const service4 = `
[[service]]
name = "web"
listen = ["` + lab.VIP4 + `:80"]
source = "host"
[[service.backend]]
address = "` + lab.ServerIP4 + `:80"
`

// TestBackendIsService has a backend that is a listener of the same
// configuration, in plain words and by way of an address of the host.
func TestBackendIsService(t *testing.T) {
	b := newBed(t)
	b.wantRefused(service("vip", lab.VIP4+":80", lab.VIP4+":80"), options{}, exitUsage, "address", lab.VIP4+":80")
	b.wantRefused(service("vip", "0.0.0.0:8082", "127.0.0.1:8082"), options{}, exitUsage, "connections would loop")
	b.wantRefused(service("vip", "0.0.0.0:8082", lab.ProxyServerIP4+":8082"), options{}, exitFailed,
		`service "vip": backend `+lab.ProxyServerIP4+":8082", "the proxy itself listens on")
	b.wantRefused(service("vip", "[::]:8082", "["+lab.ProxyServerIP6+"]:8082"), options{}, exitFailed,
		`service "vip": backend [`+lab.ProxyServerIP6+"]:8082", "the proxy itself listens on")
}

func TestNoDescriptors(t *testing.T) {
	newBed(t).wantRefused(configuration("", ""), options{confinement: confinement{Descriptors: 24}}, exitFailed,
		"RLIMIT_NOFILE is 24", "no room for a connection", "LimitNOFILE")
}

// TestKill kills the daemon while it has connections, and starts it at once
// once more.
func TestKill(t *testing.T) {
	b := newBed(t)
	for range 3 {
		d := b.start(configuration("", ""), options{})
		var held []*net.TCPConn
		for _, target := range targets {
			held = append(held, b.open(target))
			// This one leaves the daemon in TIME_WAIT.
			half := b.open(target)
			if err := half.CloseWrite(); err != nil {
				t.Fatal(err)
			}
		}
		d.signal(unix.SIGKILL)
		if d.exit(); d.err == nil {
			t.Fatal("it survived SIGKILL")
		}
		again := b.start(configuration("", ""), options{})
		for name, target := range targets {
			if err := b.talk(target); err != nil {
				t.Errorf("%s after a restart: %v", name, err)
			}
		}
		for _, c := range held {
			_ = c.SetDeadline(time.Now().Add(patience))
			if err := ping(c); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("connection of the daemon that was killed: %v, want an end", err)
			}
		}
		again.stop()
	}
}
