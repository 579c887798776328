package proxy

import (
	"bytes"
	"fmt"
	"net/netip"
	"testing"

	"github.com/tproxyd/tproxyd/internal/lab"
	"github.com/tproxyd/tproxyd/internal/proxyproto"
	"github.com/tproxyd/tproxyd/internal/sys"
)

// udpHeadered returns a UDP service whose clients have to send PROXY headers.
func udpHeadered() Service {
	s := udpVIP("dns", 53)
	s.AcceptProxy = ProxyRequire
	return s
}

// TestUDPProxied has several clients behind the ports of one proxy. The backend
// sees whom the headers name, and answers go where the last question came from.
func TestUDPProxied(t *testing.T) {
	for _, mode := range []Mode{VIP, Intercept} {
		v4, v6 := lab.VIP4, lab.VIP6
		if mode == Intercept {
			v4, v6 = lab.ForeignIP4, lab.ForeignIP6
		}
		families(t, v4, v6, func(t *testing.T, ip string) {
			s, name := udpHeadered(), "dns"
			if mode == Intercept {
				s, name = udpIntercept(), "any-udp"
				s.AcceptProxy = ProxyRequire
			}
			b := newBedWorkers(t, 1, Config{Services: []Service{s}}) // the kernel gives each port of a peer to one of them
			if mode == Intercept {
				b.datagramServerOn(ip, 53, whoami)
			} else {
				b.datagramServer(whoami)
			}
			to := addrPort(ip, 53)
			one, two := b.talk(to), b.talk(to)
			for range 3 {
				for i := range 4 {
					who := named(ip, 3000+i)
					if got := string(ask(t, one, udpHeader(who, to, "question"))); got != who.String() {
						t.Errorf("the backend sees %s, want %v", got, who)
					}
				}
			}
			who := named(ip, 3000)
			if got := string(ask(t, two, udpHeader(who, to, ""))); got != who.String() {
				t.Errorf("by another port, the backend sees %s, want %v", got, who)
			}
			local := proxyproto.AppendV2(nil, &proxyproto.Header{Local: true})
			if got := string(ask(t, one, append(local, 'x'))); got != one.LocalAddr().String() {
				t.Errorf("after LOCAL, the backend sees %s, want %v", got, one.LocalAddr())
			}
			b.wantUDP(name, func(n udpCounts) bool { return n.flows == 5 && n.dropped == 0 && n.in == 14 })
		})
	}
}

// TestUDPProxiedRefused drops datagrams without a header that has to be there,
// and those with one that may not be.
func TestUDPProxiedRefused(t *testing.T) {
	s := udpHeadered()
	s.ProxyFrom = []netip.Prefix{netip.MustParsePrefix(lab.ClientRange4)}
	b := newBed(t, s)
	b.datagramServer(mirror)
	to, who := addrPort(lab.VIP4, 53), named(lab.VIP4, 3000)
	good := udpHeader(who, to, "x")
	peer := b.talkFrom("198.18.16.1:0", to)
	dropped := uint64(0)
	refuse := func(c interface{ Write([]byte) (int, error) }, data []byte) {
		t.Helper()
		if _, err := c.Write(data); err != nil {
			t.Fatal(err)
		}
		dropped++
		b.wantUDP("dns", func(n udpCounts) bool { return n.drops[dropProxyHeader] == dropped })
	}
	for _, data := range [][]byte{
		nil, []byte("none"), good[:20], append([]byte{0x0e}, good[1:]...),
		proxyHeader(1, who, to), append(proxyHeader(2, who, to), 'x'), // for TCP
		udpHeader(named(lab.VIP4, 0), to, "x"),
	} {
		refuse(peer, data)
	}
	stranger := b.talk(to)
	refuse(stranger, good)
	s.AcceptProxy = ProxyAcceptFrom
	b.apply(Config{Services: []Service{s}})
	refuse(stranger, good)
	refuse(stranger, proxyHeader(1, who, to))
	refuse(peer, []byte("none"))
	if got := ask(t, stranger, []byte("plain")); string(got) != "plain" {
		t.Errorf("answer %q", got)
	}
	if got := ask(t, peer, good); string(got) != "x" {
		t.Errorf("answer %q", got)
	}
	b.wantUDP("dns", func(n udpCounts) bool { return n.flows == 2 && n.dropped == dropped })
}

// unwrapped takes the header off a datagram, and answers with the client that
// it names, its flow's id and what follows.
func unwrapped(data []byte, _ netip.AddrPort) [][]byte {
	h, n, err := proxyproto.Parse(data)
	if err != nil || !h.Datagram {
		return [][]byte{fmt.Appendf(nil, "%v", err)}
	}
	return [][]byte{fmt.Appendf(nil, "%v %v %d %d", h.Source, h.Destination, len(h.UniqueID), len(data)-n)}
}

// TestUDPSendProxied gives each datagram a header, up to the largest there can
// be, with and without one that came.
func TestUDPSendProxied(t *testing.T) {
	families(t, lab.VIP4, lab.VIP6, func(t *testing.T, ip string) {
		s := udpVIP("dns", 53)
		s.SendProxy = 2
		b := newBed(t, s)
		b.datagramServer(unwrapped)
		to := addrPort(ip, 53)
		c := b.talk(to)
		for _, n := range []int{0, 1, 1300, 60_000} {
			want := fmt.Sprintf("%v %v 16 %d", c.LocalAddr(), to, n)
			if got := string(ask(t, c, make([]byte, n))); got != want {
				t.Errorf("the backend got %q, want %q", got, want)
			}
		}
		before := b.udpCounts("dns")
		// Behind a header these are larger than the path, and than any datagram.
		for i, n := range []int{1440, 65_480} {
			if _, err := c.Write(make([]byte, n)); err != nil {
				t.Fatal(err)
			}
			b.wantUDP("dns", func(got udpCounts) bool { return got.drops[dropTooBig] == uint64(i+1) })
		}
		if n := b.udpCounts("dns"); n.in != before.in {
			t.Errorf("%d datagrams passed, want %d", n.in, before.in)
		}
		s.AcceptProxy = ProxyRequire
		b.apply(Config{Services: []Service{s}})
		who := named(ip, 3000)
		want := fmt.Sprintf("%v %v 16 4", who, to)
		if got := string(ask(t, c, udpHeader(who, to, "data"))); got != want {
			t.Errorf("the backend got %q, want %q", got, want)
		}
	})
}

// TestUDPProxiedRuns has datagrams come in runs, each with a header of its own,
// of different clients, and of sizes that do not join again.
func TestUDPProxiedRuns(t *testing.T) {
	s := udpHeadered()
	s.Listen, s.SendProxy = s.Listen[:1], 2
	b := newBedWorkers(t, 1, Config{Services: []Service{s}})
	to := addrPort(lab.VIP4, 53)
	server := b.peer(b.Server, addrPort(lab.ServerIP4, 53), netip.AddrPort{})
	sys.SetReceiveBuffer(server.fd, 8<<20)
	sender := b.peer(b.Client, addrPort(lab.ClientIP4, 0), to)
	sys.SetReceiveBuffer(sender.fd, 1<<20)
	b.proxy.each(func(w *worker) {
		for _, l := range w.udp.listeners {
			if l != nil {
				sys.SetGRO(l.fd)
				sys.SetReceiveBuffer(l.fd, 8<<20)
			}
		}
	})
	// Many small ones of changing size fill the outbox; large ones follow.
	var sizes []int
	for i := range 300 {
		sizes = append(sizes, 100+i%7*10)
	}
	for range 8 {
		sizes = append(sizes, 20_000)
	}
	who := named(lab.VIP4, 3000)
	thaw := b.freeze(nil)
	for i, n := range sizes {
		if e := sender.try(0, udpHeader(who, to, string(bytes.Repeat([]byte{byte(i)}, n)))); e != 0 {
			t.Fatal(e)
		}
	}
	thaw()
	for i, n := range sizes {
		data, ok := server.next()
		if !ok {
			t.Fatalf("datagram %d of %d is lost; counters %+v", i, len(sizes), b.udpCounts("dns"))
		}
		h, at, err := proxyproto.Parse(data)
		if err != nil || h.Source != who || !bytes.Equal(data[at:], bytes.Repeat([]byte{byte(i)}, n)) {
			t.Fatalf("datagram %d of %d bytes came as %d bytes of %v: %v", i, n, len(data)-at, h.Source, err)
		}
	}
	// One run of two clients' datagrams by turns.
	var run []byte
	for i := range 20 {
		run = append(run, udpHeader(named(lab.VIP4, 3001+i%2), to, fmt.Sprintf("%03d", i))...)
	}
	if e := sender.try(len(run)/20, run); e != 0 {
		t.Fatal(e)
	}
	next := [2]int{0, 1}
	for range 20 {
		data, ok := server.next()
		if !ok {
			t.Fatal("a datagram of the run is lost")
		}
		h, at, err := proxyproto.Parse(data)
		if err != nil {
			t.Fatal(err)
		}
		i := int(h.Source.Port()) - 3001
		if want := fmt.Sprintf("%03d", next[i]); string(data[at:]) != want {
			t.Errorf("client %d has sent %q, want %s", i, data[at:], want)
		}
		next[i] += 2
	}
	b.wantUDP("dns", func(n udpCounts) bool { return n.flows == 3 && n.dropped == 0 && int(n.in) == len(sizes)+20 })
}
