package sockowner_test

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/tproxyd/tproxyd/internal/netnstest"
	"github.com/tproxyd/tproxyd/internal/sockowner"
)

// open opens a socket until the end of the test.
func open(t *testing.T, network, address string) interface{ File() (*os.File, error) } {
	t.Helper()
	if strings.HasPrefix(network, "tcp") {
		ln, err := net.Listen(network, address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { ln.Close() })
		return ln.(*net.TCPListener)
	}
	pc, err := net.ListenPacket(network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = pc.Close() }) // nothing was sent
	return pc.(*net.UDPConn)
}

func find(t *testing.T, network, address string) []sockowner.Owner {
	t.Helper()
	owners, err := sockowner.Find(network, netip.MustParseAddrPort(address))
	if err != nil {
		t.Fatal(err)
	}
	return owners
}

// TestFind has sockets of all kinds on one port, and wants those that are in
// the way of an address, and no others.
func TestFind(t *testing.T) {
	const all4, all6 = "0.0.0.0:5300", "[::]:5300"
	const one4, other4, one6 = "127.0.0.1:5300", "127.0.0.2:5300", "[::1]:5300"
	for _, tt := range []struct {
		network, has string // what there is; "tcp" on all addresses has both families
		want         map[string]bool
	}{
		{"tcp4", one4, map[string]bool{one4: true, all4: true}},
		{"udp4", one4, map[string]bool{one4: true, all4: true}},
		{"tcp4", all4, map[string]bool{one4: true, other4: true, all4: true}},
		{"udp4", all4, map[string]bool{one4: true, other4: true, all4: true}},
		{"tcp6", one6, map[string]bool{one6: true, all6: true}},
		{"udp6", one6, map[string]bool{one6: true, all6: true}},
		{"tcp", all6, map[string]bool{one4: true, other4: true, all4: true, one6: true, all6: true}},
		{"udp", all6, map[string]bool{one4: true, other4: true, all4: true, one6: true, all6: true}},
	} {
		t.Run(tt.network+" "+tt.has, func(t *testing.T) {
			open(t, tt.network, tt.has)
			open(t, tt.network, strings.Replace(tt.has, "5300", "5301", 1)) // another port is nobody's business
			for _, address := range []string{all4, all6, one4, other4, one6} {
				var want []string
				if tt.want[address] {
					want = []string{fmt.Sprintf("%s (%s) is held by %s (pid %d)", tt.has, tt.network[:3], self(t), os.Getpid())}
				}
				if diff := cmp.Diff(want, texts(find(t, tt.network[:3], address))); diff != "" {
					t.Errorf("in the way of %s (-want +got):\n%s", address, diff)
				}
				// The other protocol has ports of its own.
				other := map[string]string{"tcp": "udp", "udp": "tcp"}[tt.network[:3]]
				if got := find(t, other, address); len(got) != 0 {
					t.Errorf("in the way of %s of %s: %v", address, other, got)
				}
			}
		})
	}
}

// self is what the kernel calls this process.
func self(t *testing.T) string {
	t.Helper()
	name, err := os.ReadFile("/proc/self/comm")
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(name))
}

func texts(owners []sockowner.Owner) []string {
	var all []string
	for _, o := range owners {
		all = append(all, o.String())
	}
	return all
}

// holder starts a process that has a socket of ours open.
func holder(t *testing.T, socket *os.File) int {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	c := exec.CommandContext(ctx, "sleep", "600")
	c.ExtraFiles = []*os.File{socket}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		_ = c.Wait() // it was killed
	})
	return c.Process.Pid
}

// TestOtherProcess has two other processes share a socket that is no longer
// ours.
func TestOtherProcess(t *testing.T) {
	for network, address := range map[string]string{"tcp": "127.0.0.1:5302", "udp": "[::1]:5302"} {
		socket, err := open(t, network, address).File()
		if err != nil {
			t.Fatal(err)
		}
		first := holder(t, socket)
		second := holder(t, socket)
		if err := socket.Close(); err != nil {
			t.Fatal(err)
		}
		owners := find(t, network, address)
		// What open has opened is still ours.
		if len(owners) != 1 || !owners[0].Own() || len(owners[0].Processes) != 3 {
			t.Fatalf("%s: %+v", network, owners)
		}
		others := owners[0]
		others.Processes = others.Processes[1:]
		if others.Processes[0].PID == os.Getpid() { // pids have begun anew
			others.Processes = append(owners[0].Processes[:1:1], owners[0].Processes[2:]...)
		}
		want := fmt.Sprintf("%s (%s) is held by sleep (pid %d and 1 more)", address, network, min(first, second))
		if got := others.String(); got != want || others.Own() {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

// TestSeveral wants the likeliest first, and a process with many sockets on one
// address once.
func TestSeveral(t *testing.T) {
	for _, address := range []string{"127.0.0.1:5303", "127.0.0.2:5303"} {
		open(t, "udp4", address)
	}
	if got := find(t, "udp", "0.0.0.0:5303"); len(got) != 2 {
		t.Errorf("two addresses in the way: %v", got)
	}
	if got := find(t, "udp", "127.0.0.2:5303"); len(got) != 1 || got[0].Local.String() != "127.0.0.2:5303" {
		t.Errorf("one address in the way: %v", got)
	}
	// A connection has the listener's address as well.
	open(t, "tcp4", "127.0.0.1:5303")
	c, err := net.Dial("tcp4", "127.0.0.1:5303")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if got := find(t, "tcp", "127.0.0.1:5303"); len(got) == 0 || !got[0].Own() {
		t.Errorf("the listener is not the first one: %v", got)
	}
}

// TestEnding is about what is left of a connection that was closed here first.
func TestEnding(t *testing.T) {
	ln, err := net.Listen("tcp4", "127.0.0.1:5304")
	if err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("tcp4", "127.0.0.1:5304")
	if err != nil {
		t.Fatal(err)
	}
	s, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	for _, closer := range []interface{ Close() error }{ln, s, c} {
		if err := closer.Close(); err != nil {
			t.Fatal(err)
		}
	}
	const want = "127.0.0.1:5304 (tcp) is held by a connection that is ending"
	netnstest.Eventually(t, 10*time.Second, func() bool {
		got := texts(find(t, "tcp", "127.0.0.1:5304"))
		return len(got) == 1 && got[0] == want
	}, "only TIME_WAIT is left")
}

// TestHidden says what can be said of a process that is not to be seen.
func TestHidden(t *testing.T) {
	o := sockowner.Owner{Network: "udp", Local: netip.MustParseAddrPort("0.0.0.0:53"), UID: 4_000_000_001, Inode: 77}
	const unknown = "0.0.0.0:53 (udp) is held by a process of uid 4000000001, socket inode 77"
	if got := o.String(); got != unknown || o.Own() {
		t.Errorf("got %q, want %q", got, unknown)
	}
	o.UID = 0
	const known = "0.0.0.0:53 (udp) is held by a process of user root (uid 0), socket inode 77"
	if got := o.String(); got != known {
		t.Errorf("got %q, want %q", got, known)
	}
	o.Processes = []sockowner.Process{{PID: 5}}
	const ended = "0.0.0.0:53 (udp) is held by a process that has just ended (pid 5)"
	if got := o.String(); got != ended {
		t.Errorf("got %q, want %q", got, ended)
	}
}

func TestUnknownNetwork(t *testing.T) {
	if got, err := sockowner.Find("sctp", netip.MustParseAddrPort("127.0.0.1:1")); err == nil {
		t.Errorf("got %v", got)
	}
}
