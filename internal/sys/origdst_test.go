package sys

import (
	"net"
	"strings"
	"testing"

	"github.com/tproxyd/tproxyd/internal/lab"
	"github.com/tproxyd/tproxyd/internal/netnstest"
)

// interceptUDP hands UDP to port 40053 to a socket at port 15001, from the
// client and from this host itself, both families. The lab's end undoes it.
func interceptUDP(t testing.TB, l *lab.Lab) {
	t.Helper()
	nft, ip := netnstest.Need(t, "nft", "nftables"), netnstest.Need(t, "ip", "iproute2")
	cmd := l.Proxy.Command(t.Context(), nft, "-f", "-")
	cmd.Stdin = strings.NewReader(`
		table inet sys_test {
			chain prerouting {
				type filter hook prerouting priority mangle
				meta nfproto ipv4 udp dport 40053 tproxy ip to :15001 meta mark set 1 accept
				meta nfproto ipv6 udp dport 40053 tproxy ip6 to :15001 meta mark set 1 accept
			}
			chain output {
				type route hook output priority mangle
				udp dport 40053 meta mark set 1
			}
		}`)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("nft: %v: %s", err, out)
	}
	for _, args := range []string{
		"-4 rule add fwmark 1 lookup 100", "-4 route add local default dev lo table 100",
		"-6 rule add fwmark 1 lookup 100", "-6 route add local default dev lo table 100",
	} {
		if out, err := l.Proxy.Command(t.Context(), ip, strings.Fields(args)...).CombinedOutput(); err != nil {
			t.Fatalf("ip %s: %v: %s", args, err, out)
		}
	}
}

// TestOriginalDestination has a rule bring datagrams to a listener, whole and
// in fragments.
func TestOriginalDestination(t *testing.T) {
	eachUDP(t, func(t *testing.T, l *lab.Lab, f udpFamily) {
		interceptUDP(t, l)
		to := listenUDP(t, at(f.wildcard, 15001), true, true)
		if e := SetPacketInfo(to, f.family); e != 0 {
			t.Fatal(e)
		}
		asked := at(f.foreign, 40053)
		client := udpIn(t, l.Client, at(f.client, 40001), asked)
		for _, size := range []int{0, 100, 3000} {
			if _, e := Send(client, pattern(size, 2), false); e != 0 {
				t.Fatal(e)
			}
			a := receive(t, to, 1)[0]
			c := a.control
			if len(a.data) != size || a.from != at(f.client, 40001) || !c.HasDest || c.Dest.AddrPort() != asked || c.Truncated {
				t.Errorf("%d bytes from %v to %v, want %d", len(a.data), a.from, c.Dest.AddrPort(), size)
			}
			if c.Fragment != 0 != (size > 1500) || c.Interface != linkIndex(t, lab.ClientLink) {
				t.Errorf("%d bytes: fragment %d, interface %d", size, c.Fragment, c.Interface)
			}
		}
		// A run keeps its destination, and stays a run.
		s := NewSender(1)
		s.Add(nil, 1000, pattern(20000, 2))
		sendAll(t, s, client)
		for _, a := range receive(t, to, 20) {
			if c := a.control; c.Segment != 1000 || c.Dest.AddrPort() != asked {
				t.Errorf("segment %d to %v", c.Segment, c.Dest.AddrPort())
			}
		}
		// What this host sends comes in by its loopback interface.
		own := boundUDP(t, at(f.router, 40001))
		if e := SendTo(own, sockAddr(asked), []byte("own")); e != 0 {
			t.Fatal(e)
		}
		a := receive(t, to, 1)[0]
		if c := a.control; string(a.data) != "own" || c.Dest.AddrPort() != asked || c.Interface != linkIndex(t, "lo") {
			t.Errorf("%q to %v by interface %d", a.data, c.Dest.AddrPort(), c.Interface)
		}
		// Without origDst nothing is said.
		plain := listenUDP(t, at(f.router, 40054), true, false)
		if e := SendTo(own, sockAddr(at(f.router, 40054)), nil); e != 0 {
			t.Fatal(e)
		}
		if c := receive(t, plain, 1)[0].control; c != (Control{}) {
			t.Errorf("%+v", c)
		}
	})
}

func linkIndex(t testing.TB, name string) int {
	t.Helper()
	ifi, err := net.InterfaceByName(name)
	if err != nil {
		t.Fatal(err)
	}
	return ifi.Index
}
