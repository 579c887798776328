package proxy

import (
	"net"
	"net/netip"
	"testing"

	"github.com/tproxyd/tproxyd/internal/admission"
	"github.com/tproxyd/tproxyd/internal/lab"
	"github.com/tproxyd/tproxyd/internal/sys"
	"golang.org/x/sys/unix"
)

// TestTapUDP has UDP flows of every source policy told, with the shared client
// socket and with their own. Dialing names the whole source.
func TestTapUDP(t *testing.T) {
	for _, policy := range []Source{Client, PreferClient, ClientIP, Host} {
		t.Run(policy.String(), func(t *testing.T) {
			dns, foreign := udpVIP("dns", 53), udpIntercept()
			dns.Source, foreign.Source = policy, policy
			b, k := tapped(t, dns, foreign)
			b.datagramServer(whoami)
			for _, ip := range []string{lab.ForeignIP4, lab.ForeignIP6} {
				b.datagramServerOn(ip, 53, whoami)
			}
			for service, to := range map[string][]string{"dns": {lab.VIP4, lab.VIP6}, "any-udp": {lab.ForeignIP4, lab.ForeignIP6}} {
				for _, ip := range to {
					testTapUDP(t, b, k, service, addrPort(ip, 53), policy)
				}
			}
			k.wantBalance(t, false)
		})
	}
}

func testTapUDP(t *testing.T, b *bed, k *tapKeeper, service string, to netip.AddrPort, policy Source) {
	t.Helper()
	c := b.talk(to)
	source, err := netip.ParseAddrPort(string(ask(t, c, []byte("who am i"))))
	if err != nil {
		t.Fatal(err)
	}
	from := udpAddr(c.LocalAddr())
	name, why := "original", "original destination"
	if service == "dns" {
		name, why = "a4", "first choice"
		if source.Addr().Is6() {
			name = "a6"
		}
	}
	want := []string{"Opened", "Dialing " + name}
	calls := k.of(t, from, want...)
	if f := calls[0]; f.Peer != from || f.Local != to {
		t.Errorf("opened as %+v", f.TapFlow)
	}
	if !b.proxy.CutFlow(calls[0].ID) {
		t.Error("the flow is not there")
	}
	calls = k.of(t, from, append(want, "Ended killed")...)
	for i, got := range calls {
		if got.Service != service || got.Protocol != UDP || got.Destination != to || got.SourcePolicy != policy.String() {
			t.Errorf("%s of %+v", got.method, got.TapFlow)
		}
		if i > 0 && (got.UpstreamSource != source || got.Why != why || got.Retries != 0) {
			t.Errorf("%s of %+v, want source %v", got.method, got.TapFlow, source)
		}
	}
	size := uint64(len(source.String()))
	if f := calls[2]; f.BytesIn != 8 || f.BytesOut != size || f.DatagramsIn != 1 || f.DatagramsOut != 1 || f.ClientRTT != -1 || f.UpstreamRetrans != -1 {
		t.Errorf("ended as %+v", f.TapFlow)
	}
}

func udpAddr(a net.Addr) netip.AddrPort {
	ap := a.(*net.UDPAddr).AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}

// TestTapBeforeDatagram holds a worker in Dialing: no datagram has left yet.
func TestTapBeforeDatagram(t *testing.T) {
	for _, policy := range []Source{Client, Host} {
		t.Run(policy.String(), func(t *testing.T) {
			s := udpVIP("dns", 53)
			s.Listen, s.Backends, s.Source = s.Listen[:1], s.Backends[:1], policy
			b := newBedConfig(t, Config{Services: []Service{s}})
			k, entered, goOn := held(t)
			b.proxy.SetTap(k)
			heard := make(chan string, 8)
			b.datagramServer(func(data []byte, _ netip.AddrPort) [][]byte {
				heard <- string(data)
				return [][]byte{data}
			})
			c := b.talk(addrPort(lab.VIP4, 53))
			if _, err := c.Write([]byte("question")); err != nil {
				t.Fatal(err)
			}
			<-entered
			marker, err := b.Proxy.Dial(t.Context(), "udp", addrPort(lab.ServerIP4, 53).String())
			if err != nil {
				t.Fatal(err)
			}
			defer marker.Close()
			if _, err := marker.Write([]byte("marker")); err != nil {
				t.Fatal(err)
			}
			first := <-heard
			goOn()
			if first != "marker" {
				t.Errorf("%q left before Dialing has returned", first)
			}
			if got := receive(t, c); string(got) != "question" {
				t.Errorf("got %q", got)
			}
		})
	}
}

// TestTapUDPFailures tells of flows that cannot be, end by ICMP, or are not
// admitted.
func TestTapUDPFailures(t *testing.T) {
	dns, closed, denied := udpVIP("dns", 53), udpVIP("closed", 54), udpVIP("denied", 55)
	dns.Listen = append(dns.Listen, addrPort(lab.VIP4, 57))
	dns.Backends = dns.Backends[:1]
	closed.Backends = pool(lab.VIP4, 99)
	denied.Admission = &admission.Config{Deny: []netip.Prefix{netip.MustParsePrefix(lab.ClientIP4 + "/32")}}
	b, k := tapped(t, dns, closed, denied)
	b.datagramServer(mirror)
	send := func(local string, to netip.AddrPort) netip.AddrPort {
		t.Helper()
		c := b.talkFrom(local, to)
		if _, err := c.Write([]byte("?")); err != nil {
			t.Fatal(err)
		}
		return udpAddr(c.LocalAddr())
	}
	k.of(t, send("", addrPort(lab.VIP4, 54)), "Opened", "Dialing b99", "Ended port_unreachable")
	k.of(t, send("", addrPort(lab.VIP6, 53)), "Opened", "Ended no_backend")
	// The same client port, towards the same backend.
	first := b.packetSocket(b.Client, addrPort(lab.ClientIP4, 33333))
	for i, port := range []int{53, 57} {
		if _, err := first.WriteToUDPAddrPort([]byte("?"), addrPort(lab.VIP4, port)); err != nil {
			t.Fatal(err)
		}
		eventually(t, func() bool {
			k.mu.Lock()
			defer k.mu.Unlock()
			return len(k.calls) >= 3+i
		}, "the flow is told")
	}
	if e := k.told(t, 1)[0]; e.Kind != TapConnectFailed || e.Reason != SourceConflict || e.Backend != "a4" || e.Client != addrPort(lab.ClientIP4, 33333) {
		t.Errorf("event %+v", e)
	}
	eventually(t, func() bool { return b.proxy.Flows() == 1 }, "one of both flows is there")
	k.wantBalance(t, true)
	from := send("", addrPort(lab.VIP4, 55))
	if e := k.told(t, 2)[1]; e.Kind != TapRefused || e.Service != "denied" || e.Client != from || e.Reason != Denied {
		t.Errorf("event %+v", e)
	}
}

// TestUDPEndInEnd ends a flow whose last replies meet an error that ends it as
// well. It ends once.
func TestUDPEndInEnd(t *testing.T) {
	b, k := tapped(t, udpIntercept())
	b.datagramServerOn(lab.ForeignIP4, 53, mirror)
	c := b.talk(addrPort(lab.ForeignIP4, 53))
	ask(t, c, []byte("?"))
	from := udpAddr(c.LocalAddr())
	c.Close()
	b.proxy.each(func(w *worker) {
		u := &w.udp
		u.flows.all(func(f *udpFlow) {
			fd := int(f.fds[client])
			reply := func() {
				u.address(&u.home, fd)
				u.put(&u.home, f, upstream, []byte("late"), &sys.Control{})
			}
			reply()
			u.flush(&u.home)
			poll := []unix.PollFd{{Fd: int32(fd)}} // POLLERR is always looked for
			if n, err := unix.Poll(poll, int(patience.Milliseconds())); n != 1 || err != nil {
				t.Errorf("no ICMP error: %v", err)
			}
			reply()
			u.end(f, Killed)
		})
	})
	k.of(t, from, "Opened", "Dialing original", "Ended client_reset")
	if n := b.proxy.Flows(); n != 0 {
		t.Errorf("%d flows are left", n)
	}
	b.wantUDP("any-udp", func(n udpCounts) bool {
		return n.flows == 1 && n.active == 0 && n.closed[ClientReset] == 1 && n.closed[Killed] == 0
	})
}
