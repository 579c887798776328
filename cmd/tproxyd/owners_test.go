package main

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/tproxyd/tproxyd/internal/lab"
	"github.com/tproxyd/tproxyd/internal/sockowner"
	"github.com/tproxyd/tproxyd/proxy"
	"golang.org/x/sys/unix"
)

// name is what the kernel calls the daemon.
func (d *process) name() string {
	d.t.Helper()
	return commandName(d.t, fmt.Sprintf("/proc/%d/comm", d.cmd.Process.Pid))
}

func commandName(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(text))
}

// holding is what the daemon has to say of an address that the tests have.
func holding(network, address string) string {
	return fmt.Sprintf("%s (%s) is held by ", address, network)
}

// held opens a UDP socket in the proxy until the end of the test.
func (b *bed) held(address string) {
	b.t.Helper()
	pc, err := b.Proxy.ListenPacket("udp", address)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { _ = pc.Close() }) // nothing was sent
}

// TestUDPPortInUse has a resolver where a service is to be: on the address
// itself, on all of IPv4, and on all of both families. The message names it.
func TestUDPPortInUse(t *testing.T) {
	b := newBed(t)
	self := fmt.Sprintf("%s (pid %d)", commandName(t, "/proc/self/comm"), os.Getpid())
	both := fmt.Sprintf(configHead, "", "") + udpService("dns", 53)
	for _, tt := range []struct{ has, refused string }{
		{lab.ProxyClientIP4 + ":53", "0.0.0.0:53"},
		{"0.0.0.0:53", lab.VIP4 + ":53"},
		{"[::]:53", lab.VIP4 + ":53"},
	} {
		t.Run(tt.has, func(t *testing.T) {
			inner := *b
			inner.t = t
			network := "udp4"
			if strings.HasPrefix(tt.has, "[") {
				network = "udp"
			}
			pc, err := b.Proxy.ListenPacket(network, tt.has)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = pc.Close() }() // nothing was sent
			text := strings.Replace(both, lab.VIP4+":53", tt.refused, 1)
			inner.wantRefused(text, options{}, exitFailed, `service "dns": listen on `+tt.refused,
				"bind: address already in use: "+holding("udp", tt.has)+self, "ss -lntup")
		})
	}
}

// TestOwnersOfReload has a reload add addresses of which others have two, and
// wants both named at once. The daemon's own sockets are not in its way.
func TestOwnersOfReload(t *testing.T) {
	b := udpBed(t)
	b.held(lab.ProxyClientIP4 + ":54")
	b.held(lab.ProxyClientIP4 + ":55")
	text := configuration("", "") + udpService("dns", 53)
	d := b.start(text, options{})
	d.wantReload(text+strings.NewReplacer(lab.VIP4+":54", lab.ProxyClientIP4+":54").Replace(udpService("second", 54))+
		strings.NewReplacer(lab.VIP4+":55", "0.0.0.0:55").Replace(udpService("third", 55)), false)
	self := fmt.Sprintf("%s (pid %d)", commandName(t, "/proc/self/comm"), os.Getpid())
	d.logged(`service \"second\": listen on ` + lab.ProxyClientIP4 + ":54: bind: address already in use: " +
		holding("udp", lab.ProxyClientIP4+":54") + self + ", " + holding("udp", lab.ProxyClientIP4+":55") + self + "; ")
	// From one address to all of the port: what was there is shared with.
	d.wantReload(strings.Replace(text, lab.VIP4+":53", "0.0.0.0:53", 1), true)
	b.converse(lab.ProxyClientIP4 + ":53").ask("all of the port")
	if code := d.terminateNow(); code != exitOK {
		t.Errorf("exit code %d\n%s", code, &d.stderr)
	}
}

// TestOwnersNote is about notes that no daemon here would have.
func TestOwnersNote(t *testing.T) {
	other := errors.New("another error")
	if got := withOwners(other, nil, nil); got != other { //nolint:errorlint // the very same
		t.Errorf("%v became %v", other, got)
	}
	inUse := fmt.Errorf("listen: %w", os.NewSyscallError("bind", unix.EADDRINUSE))
	free := []proxy.Service{{Listen: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:8083")}}}
	if got := withOwners(inUse, free, nil); got != inUse { //nolint:errorlint // the very same
		t.Errorf("of an address that is free again: %v", got)
	}
	b := newBed(t)
	var many []proxy.Service
	for i := range maxOwners + 2 {
		address := fmt.Sprintf("127.0.0.1:%d", 8090+i)
		b.held(address)
		many = append(many, proxy.Service{Protocol: proxy.UDP, Listen: []netip.AddrPort{netip.MustParseAddrPort(address)}})
	}
	got := withOwners(inUse, many, nil)
	if text := got.Error(); !errors.Is(got, unix.EADDRINUSE) || strings.Count(text, " is held by ") != maxOwners ||
		!strings.HasSuffix(text, ", and 2 more") || !strings.Contains(text, ", this process itself") {
		t.Errorf("of %d addresses: %v", len(many), got)
	}
	running := []proxy.ServiceStatus{{Service: many[0]}}
	if got := withOwners(inUse, many[:1], running); got != inUse { //nolint:errorlint // the very same
		t.Errorf("of a listener of the running configuration: %v", got)
	}
	if owners, err := sockowner.Find("udp", many[0].Listen[0]); err != nil || len(owners) != 1 || !owners[0].Own() {
		t.Errorf("owners %v, %v", owners, err)
	}
}
