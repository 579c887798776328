package proxy

import (
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/tproxyd/tproxyd/internal/admission"
	"github.com/tproxyd/tproxyd/internal/lab"
	"github.com/tproxyd/tproxyd/internal/proxyproto"
)

// from connects the client from an address of its range.
func (b *bed) from(ip string, to netip.AddrPort) (*net.TCPConn, error) {
	c, err := b.Client.DialFrom(b.t.Context(), "tcp", netip.AddrPortFrom(netip.MustParseAddr(ip), 0).String(), to.String())
	if err != nil {
		return nil, err
	}
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	b.t.Cleanup(func() { c.Close() })
	return c.(*net.TCPConn), nil
}

// admitted reports whether a connection from ip is served.
func (b *bed) admitted(ip string, to netip.AddrPort) (*net.TCPConn, bool) {
	c, err := b.from(ip, to)
	if err != nil {
		return nil, false
	}
	return c, ping(c) == nil
}

// manyPrefixes are n that no client of the lab has.
func manyPrefixes(n int) (all []netip.Prefix) {
	for i := range n {
		all = append(all, netip.MustParsePrefix(fmt.Sprintf("203.0.%d.%d/32", i/256, i%256)))
	}
	return all
}

// TestAdmissionLists refuses whom the longest prefix denies before any backend
// hears of it.
func TestAdmissionLists(t *testing.T) {
	s := vip("web", 80)
	s.Admission = &admission.Config{
		Allow: append(manyPrefixes(1000), netip.MustParsePrefix("198.18.17.9/32"), netip.MustParsePrefix(lab.ClientRange4), netip.MustParsePrefix("2001:db8:16::1/128")),
		Deny:  append(manyPrefixes(1000), netip.MustParsePrefix("198.18.17.0/24"), netip.MustParsePrefix(lab.ClientRange6)),
	}
	b := newBed(t, s)
	b.server(80, echo)
	for ip, want := range map[string]bool{
		"198.18.16.1": true, "198.18.17.1": false, "198.18.17.9": true, lab.ClientIP4: false,
		"2001:db8:16::1": true, "2001:db8:16::2": false, lab.ClientIP6: false,
	} {
		vip := lab.VIP4
		if netip.MustParseAddr(ip).Is6() {
			vip = lab.VIP6
		}
		c, ok := b.admitted(ip, addrPort(vip, 80))
		if ok != want {
			t.Errorf("%s admitted: %v, want %v", ip, ok, want)
		}
		if c != nil {
			c.Close()
		}
	}
	b.ends("web", map[Reason]uint64{ClientClose: 3, Denied: 4})
	b.wantTries("web", "a4", map[string]uint64{"ok": 2})
	b.wantTries("web", "a6", map[string]uint64{"ok": 1})
	denied := 0
	for _, r := range b.records.wait(t, 7) {
		if r.Reason == "denied" {
			denied++
		}
	}
	if denied != 4 {
		t.Errorf("%d records say denied, want 4", denied)
	}
}

// TestAdmissionConcurrent counts a client's flows over both workers, until they
// end, however they end, and across reloads.
func TestAdmissionConcurrent(t *testing.T) {
	const most = 5
	s := limited(1000, 10)
	s.Listen = vip("web", 80).Listen
	s.Backends = bothPools(81)
	s.Admission = &admission.Config{MaxPerClient: most, Bits4: 24, Bits6: 64}
	b := newBed(t, s)
	b.server(81, echo)
	for i, net6 := range []bool{false, true} {
		ip, vip := func(i int) string { return fmt.Sprint("198.18.16.", i) }, addrPort(lab.VIP4, 80)
		other := "198.18.17.1"
		if net6 {
			ip, vip = func(i int) string { return fmt.Sprintf("2001:db8:16::%x", i) }, addrPort(lab.VIP6, 80)
			other = lab.ClientIP6
		}
		var held []*net.TCPConn
		for n := range most {
			c, ok := b.admitted(ip(n+1), vip)
			if !ok {
				t.Fatalf("flow %d is refused", n)
			}
			held = append(held, c)
		}
		refused := func() {
			t.Helper()
			before := b.closed(ClientLimit)
			if _, ok := b.admitted(ip(99), vip); ok {
				t.Error("one more than allowed is admitted")
			}
			eventually(t, func() bool { return b.closed(ClientLimit) == before+1 }, "one ended for the limit")
		}
		refused()
		if c, ok := b.admitted(other, vip); !ok {
			t.Error("another client is refused")
		} else {
			c.Close()
		}
		b.apply(Config{Services: []Service{s}, Records: true})
		refused()
		// A flow each ends in order, by RST, and by being cut.
		held[0].Close()
		abort(held[1])
		b.proxy.EachFlow(func(int) func(*FlowInfo) {
			return func(f *FlowInfo) {
				if f.Client.String() == held[2].LocalAddr().String() {
					go b.proxy.CutFlow(f.ID)
				}
			}
		})
		eventually(t, func() bool { return b.inState(relaying) == 2 }, "three have ended")
		for n := range 3 {
			c, ok := b.admitted(ip(n+1), vip)
			if !ok {
				t.Fatalf("flow %d of those that may come again is refused", n)
			}
			held = append(held, c)
		}
		refused()
		for _, c := range held {
			c.Close()
		}
		eventually(t, func() bool { return b.proxy.Active() == 0 }, "all have ended")
		if n := b.closed(ClientLimit); n != uint64(3*(i+1)) {
			t.Errorf("%d refused, want %d", n, 3*(i+1))
		}
	}
	b.wantBooks(t)
}

// TestAdmissionReleased has flows that never get a backend count no more when
// they have ended.
func TestAdmissionReleased(t *testing.T) {
	s := limited(1, 10)
	s.Admission = &admission.Config{MaxPerClient: 2}
	b := newBed(t, s)
	vip := addrPort(lab.VIP4, 80)
	for range 10 {
		b.wantRefused(vip) // nobody listens
	}
	b.names(81)
	_, first := b.whose(vip)
	for range 3 {
		c := b.dial(vip)
		eventually(t, func() bool { return b.queued() == 1 }, "one waits")
		b.later(s.QueueTimeout / 2)
		if _, err := first.Write([]byte("x")); err != nil { // it is not idle
			t.Fatal(err)
		}
		abort(c)
		eventually(t, func() bool { return b.queued() == 0 }, "none waits")
	}
	if n := b.closed(ClientLimit); n != 0 {
		t.Errorf("%d were refused for the limit", n)
	}
}

// TestAdmissionRate lets a client open so many flows at once, and more as time
// goes by.
func TestAdmissionRate(t *testing.T) {
	s := vip("web", 80)
	s.IdleTimeout = 0
	s.Admission = &admission.Config{Rate: 0.001, Burst: 3}
	b := newBed(t, s)
	b.server(80, echo)
	try := func() (n int) {
		for range 5 {
			if c, ok := b.admitted("198.18.16.1", addrPort(lab.VIP4, 80)); ok {
				n++
				c.Close()
			}
		}
		return n
	}
	if n := try(); n != 3 {
		t.Errorf("%d of 5 are admitted, want 3", n)
	}
	eventually(t, func() bool { return b.proxy.Connections() == 0 }, "they end before the clock jumps")
	b.later(1001 * time.Second)
	if n := try(); n != 1 {
		t.Errorf("%d of 5 are admitted after the time for one, want 1", n)
	}
	b.ends("web", map[Reason]uint64{ClientClose: 4, ClientRate: 6})
}

// TestAdmissionNamed counts whom the PROXY header names, not who sends it.
func TestAdmissionNamed(t *testing.T) {
	s := headered("web", 80)
	s.Admission = &admission.Config{Deny: []netip.Prefix{netip.MustParsePrefix("198.18.17.0/24"), netip.MustParsePrefix(lab.ClientIP4 + "/32")}, MaxPerClient: 1}
	b := newBed(t, s)
	b.server(80, echo)
	open := func(from netip.AddrPort) bool {
		c := b.dial(addrPort(lab.VIP4, 80))
		_ = together(c, proxyHeader(2, from, addrPort(lab.VIP4, 80)))
		return ping(c) == nil
	}
	for i, tc := range []struct {
		from netip.AddrPort
		want bool
	}{
		{named(lab.VIP4, 1001), true},
		{named(lab.VIP4, 1002), false},
		{addrPort("198.18.16.78", 1001), true},
		{addrPort("198.18.17.1", 1001), false},
	} {
		if open(tc.from) != tc.want {
			t.Errorf("client %d, %v: admitted %v", i, tc.from, !tc.want)
		}
	}
	if d, l := b.closed(Denied), b.closed(ClientLimit); d != 1 || l != 1 {
		t.Errorf("%d denied and %d over the limit, want 1 and 1", d, l)
	}
}

// TestAdmissionUDP drops the datagrams that would open flows which may not be.
// Flows there are go on.
func TestAdmissionUDP(t *testing.T) {
	s := udpVIP("dns", 53)
	s.MaxFlows = 8
	b := newBed(t, s)
	b.datagramServer(mirror)
	to := addrPort(lab.VIP4, 53)
	first := b.talkFrom("198.18.16.1:0", to)
	ask(t, first, []byte("hello"))
	limits := s
	limits.Admission = &admission.Config{MaxPerClient: 1}
	b.apply(Config{Services: []Service{limits}})
	ask(t, first, []byte("still"))
	second := b.talkFrom("198.18.16.2:0", to)
	ask(t, second, []byte("hello"))
	send := func(from string, n int) {
		t.Helper()
		c := b.talkFrom(from, to)
		for range n {
			if _, err := c.Write([]byte("refused")); err != nil {
				t.Fatal(err)
			}
		}
	}
	wants := func(why drop, n uint64) {
		t.Helper()
		b.wantUDP("dns", func(c udpCounts) bool { return c.drops[why] == n })
	}
	send("198.18.16.2:0", 3)
	wants(dropClientLimit, 3)
	limits.Admission = &admission.Config{Rate: 0.0001, Burst: 1}
	b.apply(Config{Services: []Service{limits}})
	third := b.talkFrom("198.18.16.3:0", to)
	ask(t, third, []byte("hello"))
	send("198.18.16.3:0", 2)
	wants(dropClientRate, 2)
	limits.Admission = &admission.Config{Deny: []netip.Prefix{netip.MustParsePrefix(lab.ClientRange4)}}
	b.apply(Config{Services: []Service{limits}})
	flood := b.newFlooder(to)
	flood.send(t, 1024)
	b.wantUDP("dns", func(c udpCounts) bool { return c.drops[dropRefused] > 100 }) // the receive queue takes some
	for _, c := range []*net.UDPConn{first, second, third} {
		ask(t, c, []byte("still"))
	}
	if n := b.udpCounts("dns"); n.evicted != 0 || n.flows != 3 {
		t.Errorf("counters %+v", n)
	}
}

// udpHeader puts a PROXY header in front of data.
func udpHeader(source, destination netip.AddrPort, data string) []byte {
	h := proxyproto.AppendV2(nil, &proxyproto.Header{Source: source, Destination: destination, Datagram: true})
	return append(h, data...)
}
