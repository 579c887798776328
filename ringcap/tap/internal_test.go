package tap

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tproxyd/tproxyd/internal/tpacket"
	"github.com/tproxyd/tproxyd/internal/tpacket/tpackettest"
	"github.com/tproxyd/tproxyd/ringcap"
)

// TestStream counts a stream that comes in any order, with retransmissions and
// over the end of the sequence numbers, to the byte.
func TestStream(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		const size = 10_000
		isn := uint32(1<<32 - 5000)
		var s stream
		s.add(isn, 0, true)
		lost := map[uint32]bool{}
		var window []uint32 // a few segments, in any order
		for at := uint32(0); at < size; at += 100 {
			if window = append(window, at); len(window) < 4 {
				continue
			}
			rnd.Shuffle(len(window), func(i, j int) { window[i], window[j] = window[j], window[i] })
			for _, seq := range window {
				if rnd.IntN(30) == 0 && len(lost) < maxHoles/2 {
					lost[seq] = true
					continue
				}
				s.add(isn+1+seq, 100, false)
				if rnd.IntN(5) == 0 {
					s.add(isn+1+seq+20, 50, false)
				}
			}
			window = window[:0]
		}
		want := size - 100*len(lost)
		if lost[size-100] {
			s.add(isn+1+size-100, 100, false)
			want += 100
		}
		if s.bytes != uint64(want) || !s.whole {
			t.Fatalf("%d bytes, want %d", s.bytes, want)
		}
	}
	var s stream
	s.add(7, 10, false)
	if s.whole || s.bytes != 10 {
		t.Errorf("a stream without its SYN: %+v", s)
	}
}

// frameOf is a packet of an endpoint pair at a time.
func frameOf(t testing.TB, protocol uint8, src, dst string, flags byte, payload int, out bool, ns int64) tpacket.Frame {
	t.Helper()
	kind := uint8(unix.PACKET_HOST)
	if out {
		kind = unix.PACKET_OUTGOING
	}
	mem := tpackettest.Ring{Reserve: 4, VNet: true}.Block(64<<10, tpackettest.Packet{Data: data(protocol, src, dst, flags, payload), Nanos: ns, Type: kind})
	var b tpacket.Block
	if ready, err := b.Load(mem, true); !ready || err != nil {
		t.Fatal(ready, err)
	}
	for f := range b.Frames() {
		return f
	}
	t.Fatal("no frame")
	return tpacket.Frame{}
}

// data is an Ethernet frame with IPv4.
func data(protocol uint8, src, dst string, flags byte, payload int) []byte {
	a, c := netip.MustParseAddrPort(src), netip.MustParseAddrPort(dst)
	b := make([]byte, 14+20+20+payload)
	b[12], b[14], b[23] = 8, 0x45, protocol
	header := 20
	if protocol == unix.IPPROTO_UDP {
		header = 8
	}
	total := 20 + header + payload
	b = b[:14+total]
	b[16], b[17] = byte(total>>8), byte(total)
	s, d := a.Addr().As4(), c.Addr().As4()
	copy(b[26:], s[:])
	copy(b[30:], d[:])
	b[34], b[35], b[36], b[37] = byte(a.Port()>>8), byte(a.Port()), byte(c.Port()>>8), byte(c.Port())
	if protocol == unix.IPPROTO_TCP {
		b[46], b[47] = 0x50, flags
	}
	return b
}

func addr(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

const (
	clientAt  = "198.18.1.2:40000"
	serviceAt = "203.0.113.10:80"
	backendAt = "198.18.2.2:80"
)

// look finds the flow of a packet and notes its SYN, as the sorter does.
func look(t *testing.T, r *registry, f tpacket.Frame) (id uint64, side uint8) {
	t.Helper()
	var s segment
	if !s.parse(f) {
		t.Fatal("not parsed")
	}
	r.mu.RLock()
	defer r.mu.RUnlock()
	l := r.find(&s, f)
	if l == nil {
		return 0, 0
	}
	l.open(&s, f.Nanos())
	return l.flow.id, l.side
}

// TestReuse gives a 4-tuple to one flow after another: each packet belongs to
// the one of its time.
func TestReuse(t *testing.T) {
	now := time.Unix(1000, 0)
	r := newRegistry(func(*Event) {})
	r.now = func() time.Time { return now }
	tell := func(id uint64) {
		r.tell(told{at: now.UnixNano(), flow: &Flow{ID: id, Protocol: unix.IPPROTO_TCP, Client: addr(clientAt), Destination: addr(serviceAt)}})
	}
	at := func(d time.Duration) int64 { return time.Unix(1000, 0).Add(d).UnixNano() }
	packet := func(flags byte, d time.Duration) tpacket.Frame {
		return frameOf(t, unix.IPPROTO_TCP, clientAt, serviceAt, flags, 0, false, at(d))
	}
	tell(1)
	r.update()
	if id, _ := look(t, r, packet(flagSYN, time.Millisecond)); id != 1 {
		t.Errorf("SYN of flow %d, want 1", id)
	}
	now = now.Add(time.Second)
	r.tell(told{id: 1, at: now.UnixNano()})
	now = now.Add(time.Second)
	tell(2)
	r.update()
	if id, _ := look(t, r, packet(flagSYN, 1900*time.Millisecond)); id != 2 {
		t.Errorf("second SYN of flow %d, want 2", id)
	}
	if id, _ := look(t, r, packet(flagACK, 1100*time.Millisecond)); id != 1 {
		t.Errorf("late ACK of flow %d, want 1", id)
	}
	if id, _ := look(t, r, packet(flagACK, 3*time.Second)); id != 2 {
		t.Errorf("ACK of flow %d, want 2", id)
	}
	r.reported = 1
	r.forget(now.Add(minLinger))
	if id, _ := look(t, r, packet(flagACK, 1100*time.Millisecond)); r.len() != 1 || id != 2 && id != 0 {
		t.Errorf("%d flows known, ACK of flow %d", r.len(), id)
	}
	r.tell(told{id: 2, at: now.UnixNano()})
	r.update()
	r.reported = 1
	r.forget(now.Add(2 * minLinger))
	if r.len() != 0 || len(r.legs) != 0 || len(r.ended) != 0 {
		t.Errorf("%d flows, %d legs are left", r.len(), len(r.legs))
	}
}

// TestTwin tells the legs apart when both have the same ends, as under TPROXY
// with the client's address towards the original destination.
func TestTwin(t *testing.T) {
	r := newRegistry(func(*Event) {})
	r.tell(told{flow: &Flow{
		ID: 1, Protocol: unix.IPPROTO_UDP, Client: addr(clientAt), Destination: addr(backendAt), Source: addr(clientAt), Upstream: addr(backendAt),
	}})
	r.update()
	for _, tt := range []struct {
		src, dst string
		out      bool
		side     uint8
	}{
		{clientAt, backendAt, false, client},
		{clientAt, backendAt, true, upstream},
		{backendAt, clientAt, false, upstream},
		{backendAt, clientAt, true, client},
	} {
		if id, side := look(t, r, frameOf(t, unix.IPPROTO_UDP, tt.src, tt.dst, 0, 10, tt.out, 1)); id != 1 || side != tt.side {
			t.Errorf("%s to %s, out %v: flow %d, leg %s", tt.src, tt.dst, tt.out, id, sideNames[side])
		}
	}
	r.tell(told{id: 1, at: 1})
	r.update()
	r.reported = 1
	r.forget(time.Unix(1e6, 0))
	if len(r.legs) != 0 {
		t.Errorf("%d legs are left", len(r.legs))
	}
}

// TestTellBounded forgets what comes when nobody takes it over.
func TestTellBounded(t *testing.T) {
	r := newRegistry(func(*Event) {})
	for range maxPending + 10 {
		r.tell(told{id: 1})
	}
	if n := r.forgotten.Load(); n != 10 {
		t.Errorf("%d forgotten, want 10", n)
	}
	r.update()
	r.tell(told{flow: &Flow{ID: 1}})
	r.update()
	if r.len() != 1 {
		t.Error("no room after the update")
	}
}

// TestKernelFilter takes everything rather than a program that is too long.
func TestKernelFilter(t *testing.T) {
	many := make([]Endpoint, 3000)
	for i := range many {
		many[i] = Endpoint{unix.IPPROTO_TCP, netip.AddrFrom4([4]byte{198, 18, byte(i >> 8), byte(i)}), 80}
	}
	few := kernelFilter(many[:3], 0, false)
	all := kernelFilter(nil, 0, false)
	if len(few) <= len(all) {
		t.Errorf("%d instructions for three endpoints, %d for all", len(few), len(all))
	}
	if got := kernelFilter(many, 0, false); len(got) != len(all) {
		t.Errorf("%d instructions for too many endpoints, want the %d for all", len(got), len(all))
	}
	if got := endpointExpression([]Endpoint{{Port: 53}, {Port: 53}, {Protocol: unix.IPPROTO_UDP, Addr: netip.MustParseAddr("2001:db8::1"), Port: 53}}); got != "(port 53) or (udp and host 2001:db8::1 and port 53)" {
		t.Errorf("expression %q", got)
	}
	if strays := kernelFilter(many[:3], 100, true); len(strays) != 1 || strays[0].K != 100 {
		t.Errorf("with strays: %v", strays)
	}
}

// TestSampled is close to the share that was asked for.
func TestSampled(t *testing.T) {
	for _, percent := range []int{1, 10, 50, 99} {
		n := 0
		for id := range uint64(100_000) {
			if sampled(id, percent) {
				n++
			}
		}
		if n < percent*1000-600 || n > percent*1000+600 {
			t.Errorf("%d of 100000 flows at %d %%", n, percent)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(data(unix.IPPROTO_TCP, clientAt, serviceAt, flagSYN, 10))
	f.Add(data(unix.IPPROTO_UDP, clientAt, serviceAt, 0, 10))
	f.Fuzz(func(t *testing.T, raw []byte) {
		if len(raw) > 4000 {
			return
		}
		mem := tpackettest.Ring{Reserve: 4, VNet: true}.Block(8<<10, tpackettest.Packet{Data: raw})
		var b tpacket.Block
		if ready, err := b.Load(mem, true); !ready || err != nil {
			t.Fatal(ready, err)
		}
		for fr := range b.Frames() {
			var s segment
			if s.parse(fr) && (s.payload < 0 || s.header < 14+20+8) {
				t.Errorf("%+v", s)
			}
		}
	})
}

// TestOutdated holds that a slow sink gives back the blocks that the ring is about
// to need, also when what has come since is not for the sink.
func TestOutdated(t *testing.T) {
	sel, err := newSelector(Selection{Services: []string{"web"}})
	if err != nil {
		t.Fatal(err)
	}
	ring, other := &source{keep: 4}, &source{keep: 4}
	s := newSink("web", sel, false, &directory{})
	push := func(from *source, seq uint64, known int) *batch {
		mem := tpackettest.Aligned(4 << 10)
		tpackettest.Ring{Reserve: 4, VNet: true}.Fill(mem, seq)
		tpackettest.Close(mem)
		block := new(ringcap.Block)
		if ready, err := block.Load(mem, true); !ready || err != nil {
			t.Fatal(ready, err)
		}
		b := newBatch(block, from) // and is never released: there is no ring
		b.known = known
		s.push(b)
		return b
	}
	first, foreign := push(ring, 1, 1), push(other, 1, 1)
	s.put(item{event: &Event{}})
	second := push(ring, 2, 1)
	for _, step := range []struct {
		seq  uint64
		left []*batch
	}{
		{3, []*batch{first, foreign, nil, second}},
		{4, []*batch{first, foreign, nil, second}},
		{5, []*batch{foreign, nil, second}},
		{9, []*batch{foreign, nil}},
	} {
		push(ring, step.seq, 0)
		var left []*batch
		for _, it := range s.items {
			left = append(left, it.batch)
		}
		if !slices.Equal(left, step.left) {
			t.Errorf("after block %d %d items are left, want %d", step.seq, len(left), len(step.left))
		}
	}
	if first.refs.Load() != 1 || second.refs.Load() != 1 || foreign.refs.Load() != 2 {
		t.Errorf("references %d, %d and %d, want 1, 1 and 2", first.refs.Load(), second.refs.Load(), foreign.refs.Load())
	}
}
