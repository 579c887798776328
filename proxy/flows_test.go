package proxy

import (
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/tproxyd/tproxyd/internal/lab"
	"github.com/tproxyd/tproxyd/internal/sys"
	"golang.org/x/sys/unix"
)

// all returns what EachFlow shows, by the client's address and port.
func (b *bed) all() map[string]FlowInfo {
	var mu sync.Mutex
	got := map[string]FlowInfo{}
	b.proxy.EachFlow(func(int) func(*FlowInfo) {
		return func(f *FlowInfo) {
			mu.Lock()
			defer mu.Unlock()
			got[f.Protocol.String()+f.Client.String()] = *f
		}
	})
	return got
}

// TestEachFlow shows thousands of flows while bytes go by and others come and
// go.
func TestEachFlow(t *testing.T) {
	const flows = 2000
	web, dns := vip("web", 80), udpVIP("dns", 53)
	b := newBed(t, web, dns)
	b.server(80, echo)
	b.datagramServer(mirror)
	var conns []*net.TCPConn
	for range flows {
		c := b.dial(addrPort(lab.VIP4, 80))
		mustPing(t, c)
		conns = append(conns, c)
	}
	u := b.talk(addrPort(lab.VIP4, 53))
	ask(t, u, []byte("question"))
	stop := make(chan struct{})
	var traffic sync.WaitGroup
	traffic.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			if err := ping(conns[i%flows]); err != nil {
				t.Error(err)
				return
			}
			if c, err := b.tryDial(addrPort(lab.VIP4, 80)); err == nil {
				c.Close()
			}
		}
	})
	for range 5 {
		got := b.all()
		for _, c := range conns {
			f, ok := got["tcp"+c.LocalAddr().String()]
			if !ok || f.State != "relaying" || f.BackendName != "a4" || f.BytesIn < 4 || f.UpstreamSource != f.Client || f.Service != "web" {
				t.Fatalf("flow of %v: %v %+v", c.LocalAddr(), ok, f)
			}
		}
		if f := got["udp"+u.LocalAddr().String()]; f.State != "active" || f.BytesIn != 8 || f.PathOut != pathDatagram {
			t.Errorf("UDP flow %+v", f)
		}
	}
	close(stop)
	traffic.Wait()
}

// TestFlowStates shows what flows are at.
func TestFlowStates(t *testing.T) {
	s := limited(1, 10)
	s.AcceptProxy, s.ProxyTimeout = ProxyRequire, time.Hour
	s.ConnectTimeout = time.Hour
	hole := vip("hole", 90)
	hole.ConnectTimeout = time.Hour
	b := newBed(t, s, hole)
	b.swallow("90")
	b.names(81)
	state := func(c net.Conn, want string) {
		t.Helper()
		eventually(t, func() bool { return b.all()["tcp"+c.LocalAddr().String()].State == want }, "a flow is "+want)
	}
	connecting := b.dial(addrPort(lab.VIP4, 90))
	state(connecting, "connecting")
	c := b.dial(addrPort(lab.VIP4, 80))
	state(c, "greeting")
	_ = together(c, []byte("PROXY UNKNOWN\r\n"))
	state(c, "relaying")
	waits := b.dial(addrPort(lab.VIP4, 80))
	_ = together(waits, []byte("PROXY UNKNOWN\r\n"))
	state(waits, "queued")
	for _, cut := range []net.Conn{connecting, waits, c} {
		if id := b.all()["tcp"+cut.LocalAddr().String()].ID; !b.proxy.CutFlow(id) || b.proxy.CutFlow(id) {
			t.Errorf("a flow is not found, or twice")
		}
	}
	wantRST(t, connecting)
	wantRST(t, waits)
	b.ends("web", map[Reason]uint64{Killed: 2})
	b.ends("hole", map[Reason]uint64{Killed: 1})
	b.wantBooks(t)
}

// TestCutFlow resets both sides of one flow, and ends a UDP flow; others stay.
func TestCutFlow(t *testing.T) {
	web, dns := vip("web", 80), udpVIP("dns", 53)
	b := newBed(t, web, dns)
	ends := make(chan error, 2)
	b.server(80, func(c *net.TCPConn) { _, err := io.Copy(c, c); ends <- err })
	b.datagramServer(mirror)
	c, other := b.dial(addrPort(lab.VIP4, 80)), b.dial(addrPort(lab.VIP4, 80))
	mustPing(t, c)
	mustPing(t, other)
	u := b.talk(addrPort(lab.VIP4, 53))
	ask(t, u, []byte("question"))
	flows := b.all()
	if b.proxy.CutFlow(1) || b.proxy.CutFlow(^uint64(0)) {
		t.Error("a flow is found that never was")
	}
	if !b.proxy.CutFlow(flows["tcp"+c.LocalAddr().String()].ID) || !b.proxy.CutFlow(flows["udp"+u.LocalAddr().String()].ID) {
		t.Error("a flow is not found")
	}
	wantRST(t, c)
	if err := <-ends; err == nil {
		t.Error("the backend sees an end in order, want a reset")
	}
	mustPing(t, other)
	ask(t, u, []byte("a new flow"))
	b.wantEnds("dns", Killed, 1)
	for _, r := range b.records.wait(t, 2) {
		if r.Reason != "killed" {
			t.Errorf("record says %s", r.Reason)
		}
	}
	if n := b.udpCounts("dns"); n.flows != 2 {
		t.Errorf("%d UDP flows, want a second one", n.flows)
	}
}

// TestLimitedBy names what was slowest, from the kernel's clocks.
func TestLimitedBy(t *testing.T) {
	const second = 1_000_000 // in the kernel's unit
	for _, tc := range []struct {
		reader               int
		busy, window, buffer uint64
		shut                 bool
		lived                time.Duration
		want                 limit
	}{
		{reader: client, busy: second, lived: 10 * time.Second, want: limitUpstream},
		{reader: upstream, busy: second, lived: 10 * time.Second, want: limitClient},
		{reader: client, busy: 9 * second, window: 5 * second, lived: 10 * time.Second, want: limitClient},
		{reader: upstream, busy: 9 * second, window: 5 * second, lived: 10 * time.Second, want: limitUpstream},
		{reader: client, busy: 9 * second, window: second, buffer: 5 * second, lived: 10 * time.Second, want: limitProxy},
		{reader: client, busy: 9 * second, window: second, buffer: second, lived: 10 * time.Second, want: limitNetwork},
		{reader: client, busy: second, window: second, buffer: second, lived: 3 * time.Second, want: limitUpstream},
		{reader: client, busy: 9 * second, shut: true, lived: 10 * time.Second, want: limitClient},
	} {
		info := unix.TCPInfo{Snd_mss: 1448, Snd_wnd: 64 << 10, Notsent_bytes: 1, Busy_time: tc.busy, Rwnd_limited: tc.window, Sndbuf_limited: tc.buffer}
		if tc.shut {
			info.Snd_wnd = 0
		}
		if got := limitedBy(tc.reader, &info, tc.lived); got != tc.want {
			t.Errorf("%+v: limited by %q, want %q", tc, limitNames[got], limitNames[tc.want])
		}
	}
}

// TestFlowQuality has records tell of slow readers and senders.
func TestFlowQuality(t *testing.T) {
	const size = 4 << 20
	b := newBed(t, vip("web", 80))
	b.server(80, func(c *net.TCPConn) {
		if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
			return
		}
		_ = sendNoise(c, 3, size, 256<<10)
	})
	// A client that reads nothing while the window is shut.
	c := b.dial(addrPort(lab.VIP4, 80))
	_ = c.SetReadBuffer(4 << 10)
	_ = together(c, []byte("x"))
	eventually(t, func() bool {
		var info unix.TCPInfo
		fd := int(b.flowNow().legs[client].fd)
		return sys.TCPInfo(fd, &info) == 0 && info.Busy_time > 1_000_000 && info.Snd_wnd == 0
	}, "the window is shut for a while")
	c.Close()
	r := b.nextRecord(t, 0)
	if r.LimitedBy != "client" || r.ClientRTT <= 0 || r.UpstreamRTT <= 0 || r.ClientRetrans < 0 {
		t.Errorf("record of a client that does not read: %+v", r)
	}
	// A client that has little to say.
	c = b.dial(addrPort(lab.VIP4, 80))
	for range 3 {
		_ = together(c, []byte("x"))
		time.Sleep(50 * time.Millisecond) //nolint:forbidigo // what is measured is its silence
	}
	abort(c)
	if r = b.nextRecord(t, 1); r.LimitedBy != "client" {
		t.Errorf("record of a client that has little to say: %+v", r)
	}
}

// TestFlowRetransmits counts segments that were sent again.
func TestFlowRetransmits(t *testing.T) {
	const size = 2 << 20
	b := newBed(t, vip("web", 80))
	b.server(80, func(c *net.TCPConn) {
		_, _ = io.ReadFull(c, make([]byte, 1))
		_ = sendNoise(c, 3, size, 256<<10)
	})
	for _, args := range [][]string{
		{"add", "table", "inet", "lossy"},
		{"add", "chain", "inet", "lossy", "in", "{ type filter hook prerouting priority raw; }"},
		{"add", "rule", "inet", "lossy", "in", "tcp", "sport", "80", "meta", "length", ">", "1000", "numgen", "inc", "mod", "8", "==", "7", "drop"},
	} {
		if out, err := b.Client.Command(t.Context(), "nft", args...).CombinedOutput(); err != nil {
			t.Fatalf("nft %v: %v: %s", args, err, out)
		}
	}
	c := b.dial(addrPort(lab.VIP4, 80))
	_ = together(c, []byte("x"))
	if n, err := io.Copy(io.Discard, c); err != nil || n != size {
		t.Fatalf("%d bytes: %v", n, err)
	}
	c.Close()
	if r := b.record(); r.ClientRetrans <= 0 || r.UpstreamRetrans != 0 {
		t.Errorf("%d and %d segments were sent again, want some to the client and none to the backend", r.ClientRetrans, r.UpstreamRetrans)
	}
	shards := serviceStatsOf(t, b.proxy, "web").shards
	if shards[0].legs[client].retransmits.Load()+shards[1].legs[client].retransmits.Load() == 0 {
		t.Error("the counter has none")
	}
}
