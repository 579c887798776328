package discovery_test

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tproxyd/tproxyd/internal/discovery"
	"github.com/tproxyd/tproxyd/internal/netnstest"
)

// knot is a real name server, in the namespace of the tests.
type knot struct {
	t      *testing.T
	dir    string
	serial int
	daemon *exec.Cmd
	output *strings.Builder
}

var knotAddr = netip.MustParseAddrPort("127.0.0.54:53")

func startKnot(t *testing.T, zone string) *knot {
	t.Helper()
	netnstest.Need(t, "knotc", "knot")
	k := &knot{t: t, dir: t.TempDir()}
	k.write(zone)
	config := fmt.Sprintf(`
server:
    rundir: "%[1]s"
    listen: %[2]s
    udp-workers: 1
    tcp-workers: 1
    background-workers: 1
control:
    listen: "%[1]s/control"
database:
    storage: "%[1]s"
log:
  - target: stderr
    any: warning
zone:
  - domain: example.
    file: "%[1]s/example.zone"
    zonefile-sync: -1
    journal-content: none
`, k.dir, knotAddr.Addr(), k.dir)
	if err := os.WriteFile(filepath.Join(k.dir, "knot.conf"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	k.start()
	t.Cleanup(k.stop)
	return k
}

func (k *knot) write(zone string) {
	k.t.Helper()
	k.serial++
	text := fmt.Sprintf("$ORIGIN example.\n@ 3600 SOA ns hostmaster %d 3600 600 86400 60\n@ 3600 NS ns\nns 3600 A 127.0.0.54\n%s\n", k.serial, zone)
	if err := os.WriteFile(filepath.Join(k.dir, "example.zone"), []byte(text), 0o600); err != nil {
		k.t.Fatal(err)
	}
}

// load changes the zone.
func (k *knot) load(zone string) {
	k.t.Helper()
	k.write(zone)
	k.control("--blocking", "zone-reload", "example.")
}

func (k *knot) control(args ...string) {
	k.t.Helper()
	knotc := netnstest.Need(k.t, "knotc", "knot")
	args = append([]string{"--socket", filepath.Join(k.dir, "control")}, args...)
	if out, err := exec.CommandContext(k.t.Context(), knotc, args...).CombinedOutput(); err != nil {
		k.t.Fatalf("knotc %v: %v\n%s", args, err, out)
	}
}

func (k *knot) start() {
	k.t.Helper()
	k.output = new(strings.Builder)
	k.daemon = exec.Command(netnstest.Need(k.t, "knotd", "knot"), "--config", filepath.Join(k.dir, "knot.conf"))
	k.daemon.Stderr = k.output
	if err := k.daemon.Start(); err != nil {
		k.t.Fatal(err)
	}
	knotc := netnstest.Need(k.t, "knotc", "knot")
	netnstest.Eventually(k.t, patience, func() bool {
		socket := filepath.Join(k.dir, "control")
		return exec.CommandContext(k.t.Context(), knotc, "--socket", socket, "zone-status", "example.", "+serial").Run() == nil
	}, "knotd answers")
}

func (k *knot) stop() {
	if k.daemon == nil {
		return
	}
	_ = k.daemon.Process.Signal(syscall.SIGTERM)
	if err := k.daemon.Wait(); err != nil {
		k.t.Errorf("knotd: %v\n%s", err, k.output)
	}
	k.daemon = nil
}

// TestKnot: a real server, whose zone changes, which goes away and comes back.
func TestKnot(t *testing.T) {
	k := startKnot(t, `
web 60 A 198.18.2.2
web 30 AAAA 2001:db8::2
alias 10 CNAME web
_https._tcp 60 SRV 10 1 443 web
_https._tcp 60 SRV 20 1 444 web
`)
	alias := discovery.Query{Host: "alias.example", Port: 80}
	h := start(t, discovery.Config{Servers: []netip.AddrPort{knotAddr}}, alias)
	between(t, h.round(), 9*time.Second, 10*time.Second)
	first := endpoints("198.18.2.2:80", "[2001:db8::2]:80")
	h.expect(alias, nil, first...)
	srv := discovery.Query{SRV: "_https._tcp.example"}
	other := start(t, discovery.Config{Servers: []netip.AddrPort{knotAddr}}, srv)
	other.round()
	other.expect(srv, nil,
		weighted("198.18.2.2:443", 1, false), weighted("198.18.2.2:444", 1, true),
		weighted("[2001:db8::2]:443", 1, false), weighted("[2001:db8::2]:444", 1, true))

	var many strings.Builder
	for i := range 300 {
		fmt.Fprintf(&many, "alias 10 A 198.18.3.%d\n", i%200)
	}
	k.load(many.String()) // 200 addresses: too long for UDP
	h.again(10 * time.Second)
	if a := h.resolver.Answers()[alias]; len(a.Endpoints) != 200 || a.Err != nil {
		t.Errorf("%d endpoints, error %v", len(a.Endpoints), a.Err)
	}
	k.load("alias 10 A 198.18.2.5\nother 10 A 198.18.2.6")
	h.again(10 * time.Second)
	last := endpoints("198.18.2.5:80")
	h.expect(alias, nil, last...)
	k.load("other 10 A 198.18.2.6")
	h.again(10 * time.Second)
	h.expect(alias, discovery.ErrNoName, last...)
	k.stop()
	h.again(time.Second)
	h.expect(alias, syscall.ECONNREFUSED, last...)
	k.write("alias 10 A 198.18.2.7")
	k.start()
	h.again(time.Second)
	h.expect(alias, nil, endpoints("198.18.2.7:80")...)
}
