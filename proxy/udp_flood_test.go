package proxy

import (
	"encoding/binary"
	"maps"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/tproxyd/tproxyd/internal/lab"
	"github.com/tproxyd/tproxyd/internal/netnstest"
	"github.com/tproxyd/tproxyd/internal/sys"
	"golang.org/x/sys/unix"
)

// flooder sends datagrams each of which has another source.
type flooder struct {
	fd      int
	sender  *sys.Sender
	to      sys.SockAddr
	packets [][]byte
	sent    int // so far
}

const (
	floodBatch = 64
	floodHosts = 1 << 12 // addresses of lab.ClientRange4
	floodPort  = 10_000  // the first of each address
)

// newFlooder opens a raw socket on the client.
func (b *bed) newFlooder(to netip.AddrPort) *flooder {
	b.t.Helper()
	f := &flooder{fd: -1, sender: sys.NewSender(floodBatch)}
	f.to.Set(netip.AddrPortFrom(to.Addr(), 0))
	for range floodBatch {
		p := make([]byte, 28, 64)
		p[0], p[8], p[9] = 0x45, 64, unix.IPPROTO_UDP // the kernel fills in length and checksum (raw(7))
		copy(p[16:], to.Addr().AsSlice())
		binary.BigEndian.PutUint16(p[22:], to.Port())
		p = append(p, "a flood"...)
		binary.BigEndian.PutUint16(p[24:], uint16(len(p)-20)) // no checksum
		f.packets = append(f.packets, p)
	}
	err := b.Client.Do(func() (err error) {
		f.fd, err = unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.IPPROTO_RAW)
		return err
	})
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { sys.Close(f.fd) })
	return f
}

// send sends n datagrams or a few more.
func (f *flooder) send(t *testing.T, n int) {
	t.Helper()
	addr := netip.MustParsePrefix(lab.ClientRange4).Addr().As4()
	first := binary.BigEndian.Uint32(addr[:])
	for ; n > 0; n -= floodBatch {
		f.sender.Reset()
		for i, p := range f.packets {
			binary.BigEndian.PutUint32(p[12:], first+uint32((f.sent+i)%floodHosts))
			binary.BigEndian.PutUint16(p[20:], uint16(floodPort+(f.sent+i)/floodHosts))
			f.sender.Add(&f.to, 0, p)
		}
		for done := 0; done < floodBatch; {
			n, e := f.sender.Send(f.fd, done)
			if done += n; e != 0 && e != unix.EAGAIN && e != unix.ENOBUFS {
				t.Fatal(e)
			}
		}
		f.sent += floodBatch
	}
}

// keepQuiet has the server not see the flood, and so not answer it.
func (b *bed) keepQuiet() {
	b.t.Helper()
	nft := netnstest.Need(b.t, "nft", "nftables")
	for _, args := range [][]string{
		{"add", "table", "inet", "quiet"},
		{"add", "chain", "inet", "quiet", "in", "{ type filter hook prerouting priority raw; }"},
		{"add", "rule", "inet", "quiet", "in", "ip", "saddr", lab.ClientRange4, "drop"},
	} {
		if out, err := b.Server.Command(b.t.Context(), nft, args...).CombinedOutput(); err != nil {
			b.t.Fatalf("nft %v: %v: %s", args, err, out)
		}
	}
}

// talkers are clients that speak now and then.
type talkers struct {
	all         []*peer
	asked, lost int
}

// newTalkers has n clients get to know their server.
func (b *bed) newTalkers(n int, to netip.AddrPort) *talkers {
	b.t.Helper()
	k := &talkers{}
	for i := range n {
		k.all = append(k.all, b.peer(b.Client, addrPort(lab.ClientIP4, 20000+i), to))
	}
	k.talk()
	k.talk()
	if k.lost != 0 {
		b.t.Fatalf("%d of %d answers lost without any flood", k.lost, k.asked)
	}
	return k
}

// talk has each ask and get its answer.
func (k *talkers) talk() {
	for _, p := range k.all {
		k.asked++
		_ = p.try(0, []byte("question")) // what is not sent has no answer either
	}
	deadline := time.Now().Add(patience)
	for _, p := range k.all {
		if !p.waitFor(p.fd, time.Until(deadline)) {
			k.lost++
		} else if got, ok := p.next(); !ok || string(got) != "question" {
			k.lost++
		}
	}
}

// reach has each ask until it gets an answer.
func (k *talkers) reach(t *testing.T) {
	t.Helper()
	for _, p := range k.all {
		// The first one waits until what is left of the flood is worked off.
		netnstest.Eventually(t, time.Minute, func() bool {
			return p.try(0, []byte("question")) == 0 && p.waitFor(p.fd, 100*time.Millisecond)
		}, "a client of before gets an answer")
	}
}

// confirmedFlows are the flows that have seen a reply and a second datagram.
func (b *bed) confirmedFlows() map[endpoint]uint64 {
	ids := make([]map[endpoint]uint64, len(b.proxy.workers))
	b.proxy.each(func(w *worker) {
		ids[w.id] = map[endpoint]uint64{}
		w.udp.flows.all(func(f *udpFlow) {
			if f.confirmed {
				ids[w.id][f.client] = f.id
			}
		})
	})
	all := map[endpoint]uint64{}
	for _, m := range ids {
		maps.Copy(all, m)
	}
	return all
}

// burden is what a proxy holds.
type burden struct {
	heap               uint64
	flows              int64
	sockets, slabs, fd int
}

func (b *bed) burden() (n burden) {
	b.t.Helper()
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	n.heap, n.flows, n.fd = m.HeapAlloc, b.udpCounts("dns").active, openDescriptors(b.t)
	slabs := make([]int, len(b.proxy.workers))
	b.proxy.each(func(w *worker) { slabs[w.id] = slabSize * len(w.udp.flows.chunks) })
	for i, w := range b.proxy.workers {
		n.sockets += int(w.stats.flowSockets.Load())
		n.slabs = max(n.slabs, slabs[i])
	}
	return n
}

// TestUDPFlood has a million sources begin flows that nobody answers, at first
// as fast as the proxy takes them, and then as fast as they can be sent. The
// proxy stays within its limits, and those who were there before do not notice.
func TestUDPFlood(t *testing.T) {
	const (
		most, known    = 2000, 100
		paced, sources = 50_000, 1 << 20
		inFlight       = 448 // fit the listeners' queues, whatever net.core.rmem_max is
	)
	to := addrPort(lab.VIP4, 53)
	s := udpVIP("dns", 53)
	s.MaxFlows = most
	s.IdleTimeout, s.UnrepliedTimeout = time.Hour, time.Hour // flows end by eviction only
	b := newBedConfig(t, Config{Services: []Service{s}, DrainTimeout: time.Second})
	b.datagramServer(mirror)
	b.keepQuiet()
	start := b.burden()
	clients := b.newTalkers(known, to)
	before := b.confirmedFlows()
	f := b.newFlooder(to)
	var early burden
	for cycle := 0; f.sent < paced; cycle++ {
		taken := b.taken() + inFlight
		f.send(t, inFlight)
		if cycle%8 == 0 {
			clients.talk()
		}
		eventually(t, func() bool { return b.taken() >= taken }, "the proxy takes what was sent")
		if n := b.udpCounts("dns").active; n > most {
			t.Fatalf("%d flows, the limit is %d", n, most)
		}
		if early.flows == 0 && f.sent > paced/4 {
			early = b.burden()
		}
	}
	if clients.lost*1000 > clients.asked {
		t.Errorf("%d of %d answers lost during the flood", clients.lost, clients.asked)
	}
	f.send(t, sources-f.sent)
	clients.reach(t)
	b.wantBurden(start, early, most, known)
	if d := cmp.Diff(before, b.confirmedFlows(), cmp.AllowUnexported(endpoint{})); d != "" {
		t.Errorf("flows of those who were there before, -before +after:\n%s", d)
	}
}

// taken is how many datagrams of clients the proxy has passed on or dropped.
func (b *bed) taken() uint64 {
	n := b.udpCounts("dns")
	return n.in + n.dropped
}

// wantBurden wants the proxy to hold no more than it may, and no more than at
// the time early, when it had all its flows already.
func (b *bed) wantBurden(start, early burden, most, known int) {
	b.t.Helper()
	n := b.burden()
	b.t.Logf("at first %+v, early %+v, at last %+v", start, early, n)
	if n.flows > int64(most) || n.sockets > most || n.slabs > most+slabSize {
		b.t.Errorf("%+v, the limit is %d flows", n, most)
	}
	if left := n.fd - start.fd - known; left > most+1 { // the flooder has one
		b.t.Errorf("%d descriptors more than before, for %d flows", left, most)
	}
	if n.heap > early.heap+4<<20 {
		b.t.Errorf("the heap has grown from %d to %d bytes", early.heap, n.heap)
	}
	if c := b.udpCounts("dns"); c.evicted != c.closed[Evicted] || int64(c.evicted) != c.flows-c.active {
		b.t.Errorf("counters %+v", c)
	}
}
